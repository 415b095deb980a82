defmodule Plausible.Webhooks.Webhook.Words do
  @moduledoc false
  # What the core's reasons mean, in words for the person who typed it in. None
  # repeats a URL's path or a header's value: both may hold tokens.

  @url %{
    too_long: "must be at most 2048 bytes",
    malformed: "is not a valid URL",
    scheme: "must begin with https:// or, where that is allowed, http://",
    https_required: "must begin with https://",
    user_info: "must not hold a user name or password: use a header instead",
    fragment: "must not hold a fragment: leave out # and what follows it",
    zone_id: "must not hold a zone: leave out % and what follows it",
    missing_host: "must name a host",
    invalid_host: "must name a valid host",
    local_name: "must name a host that the whole internet knows",
    blocked_address: "must not name an address inside a network or a reserved one",
    blocked_port: "must not name this port"
  }

  @header %{
    too_many_headers: "must be at most 20",
    headers_too_large: "must be at most 12 KiB together",
    duplicate_header: "has a name that was given before",
    reserved_header: "has a name that is reserved",
    invalid_header_name: "has a name that is not valid (letters, digits and - only)",
    invalid_header_value:
      "has a value that is not valid (1 to 4096 visible ASCII characters, spaces inside)"
  }

  @spec url(atom()) :: String.t()
  def url(reason), do: Map.get(@url, reason, "is not valid (#{reason})")

  @spec header(atom(), non_neg_integer()) :: String.t()
  def header(reason, _index) when reason in [:too_many_headers, :headers_too_large],
    do: Map.fetch!(@header, reason)

  def header(reason, index),
    do: "header #{index + 1} " <> Map.get(@header, reason, "is not valid (#{reason})")

  @doc "A value as it may be repeated in a message: short, printable."
  @spec quoted(term()) :: String.t()
  def quoted(value), do: value |> inspect(limit: 3, printable_limit: 40) |> String.slice(0, 60)
end
