defmodule Plausible.Webhooks.Webhook.URL do
  @moduledoc false
  # Judges the text that a user typed as a URL. No message repeats the path, which may
  # hold a token.

  alias Plausible.Webhooks.Native

  @type checked :: %{
          url: String.t(),
          scheme: String.t(),
          host: String.t(),
          host_unicode: String.t() | nil,
          port: 1..65_535
        }

  @messages %{
    too_long: "must be at most 2048 bytes",
    malformed: "is not a valid URL",
    scheme: "must begin with https:// or, where that is allowed, http://",
    https_required: "must begin with https://",
    user_info: "must not hold a user name or password: use a header instead",
    fragment: "must not hold a fragment: leave out # and what follows it",
    zone_id: "must not hold a zone: leave out % and what follows it",
    missing_host: "must name a host",
    invalid_host: "must name a valid host",
    local_name: "must name a host that is public on the internet",
    blocked_address: "must not name a private or reserved address",
    blocked_port: "must not name this port"
  }

  @spec check(term(), map()) :: {:ok, checked()} | {:error, String.t()}
  def check(text, policy) when is_binary(text) do
    case Native.check_url(text, policy) do
      {:ok, url} -> {:ok, %{url | host_unicode: readable(url.host_unicode)}}
      {:error, reason} -> {:error, Map.get(@messages, reason, "is not valid (#{reason})")}
    end
  end

  def check(_other, _policy), do: {:error, "must be text"}

  # IDNA also allows joiners and some punctuation, which a reader cannot see or may
  # mistake for a dot or a slash.
  defp readable(nil), do: nil
  defp readable(host), do: if(host =~ ~r/\A[\p{L}\p{M}\p{N}._-]+\z/u, do: host)
end
