defmodule Plausible.Webhooks.Ndjson do
  @moduledoc """
  Ingestion events from text, one JSON object per line: to replay what was
  recorded, and for use without Plausible's ingestion.

  A line may be what Plausible's tracker sends, what its Events API takes, or the
  fields as they are stored; the forms may be mixed.

  | field | also | what |
  |---|---|---|
  | `name` | `n` | the event's name: `pageview`, `engagement` or a custom event; required |
  | `domain` | `d` | the site; required |
  | `url` | `u` | where it happened; or `hostname` and `pathname` |
  | `props` | `p`, `m` | custom properties: up to 30 pairs; text, numbers, booleans |
  | `revenue` | `$` | `{"amount": ..., "currency": "EUR"}` |
  | `scroll_depth` | `sd` | 0 to 100 percent, 255 for "not measured" |
  | `referrer` | `r` | where the visitor came from |
  | `at` | `timestamp` | RFC 3339, or Unix seconds or milliseconds; now if absent |
  | `visitor` | | any text that is the same for the same visitor; without it each line is a visitor of its own |
  | `source`, `country`, `device`, `browser`, `os`, `utm_source`, ... | `referrer_source`, `country_code`, `screen_size`, `operating_system` | text |

  Other fields are ignored (the tracker sends some that mean nothing here).

  What comes out has the shape that Plausible's ingestion hands on, as far as
  webhooks look at it. A visit is a visitor's day.

      iex> sites = fn "example.com" -> %{id: 7, domain: "example.com"} end
      iex> line = ~s({"n":"pageview","u":"https://example.com/blog?utm_source=hn","d":"example.com"})
      iex> {:ok, event} = Plausible.Webhooks.Ndjson.parse(line, 1, sites)
      iex> {event.clickhouse_event.pathname, event.clickhouse_event.utm_source}
      {"/blog", "hn"}
      iex> {:error, error} = Plausible.Webhooks.Ndjson.parse(~s({"n":""}), 2, sites)
      iex> Plausible.Webhooks.Ndjson.message(error)
      "line 2, name: must be text of 1 to 120 bytes"
  """

  alias Plausible.Webhooks.Native
  alias Plausible.Webhooks.Ingest.Payload.Text

  @line_bytes_max 1_048_576
  @props_max 30

  @aliases %{
    "n" => "name",
    "d" => "domain",
    "u" => "url",
    "r" => "referrer",
    "p" => "props",
    "m" => "props",
    "sd" => "scroll_depth",
    "$" => "revenue",
    "timestamp" => "at",
    "referrer_source" => "source",
    "country_code" => "country",
    "screen_size" => "device",
    "operating_system" => "os"
  }

  @texts [
    referrer_source: "source",
    country_code: "country",
    screen_size: "device",
    browser: "browser",
    operating_system: "os"
  ]
  @utm ~w(utm_source utm_medium utm_campaign utm_content utm_term)a

  @type error :: %{line: pos_integer(), field: String.t() | nil, message: String.t()}
  @typedoc "The site with this domain, or `nil`."
  @type sites :: (String.t() -> %{id: integer(), domain: String.t()} | nil)

  @doc """
  Each line's event or error; blank lines are skipped. `lines` is anything
  enumerable, for example `File.stream!/1`.
  """
  @spec stream(Enumerable.t(), sites()) :: Enumerable.t()
  def stream(lines, sites) do
    lines
    |> Stream.with_index(1)
    |> Stream.reject(fn {line, _number} -> String.trim(line) == "" end)
    |> Stream.map(fn {line, number} -> parse(line, number, sites) end)
  end

  @doc "The event of one line. `number` is for the error and for a visitor without a name."
  @spec parse(binary(), pos_integer(), sites()) :: {:ok, map()} | {:error, error()}
  def parse(line, number, sites) do
    {:ok, line |> object() |> event(number, sites)}
  catch
    {:invalid, field, message} -> {:error, %{line: number, field: field, message: message}}
  end

  @doc "The error as one line of text."
  @spec message(error()) :: String.t()
  def message(%{line: line, field: nil, message: message}), do: "line #{line}: #{message}"

  def message(%{line: line, field: field, message: message}),
    do: "line #{line}, #{field}: #{message}"

  defp invalid(field, message), do: throw({:invalid, field, message})

  defp object(line) when byte_size(line) > @line_bytes_max,
    do: invalid(nil, "is longer than #{@line_bytes_max} bytes")

  defp object(line) do
    case Native.decode(String.trim_leading(line, "\uFEFF")) do
      {:ok, %{} = object} -> Map.new(object, fn {key, value} -> {@aliases[key] || key, value} end)
      {:ok, _other} -> invalid(nil, "is not a JSON object")
      {:error, {reason, offset}} -> invalid(nil, "is not JSON (#{reason} at byte #{offset})")
    end
  end

  defp event(object, number, sites) do
    name = text(object, "name", 120) || invalid("name", "must be text of 1 to 120 bytes")
    site = site(object, sites)
    {hostname, pathname, query} = location(object)
    {keys, values} = props(object)
    at = at(object)
    visitor = text(object, "visitor", 1_000) || "line #{number}"

    event =
      %{
        name: name,
        site_id: site.id,
        hostname: hostname,
        pathname: pathname,
        timestamp: at,
        user_id: hash({site.id, visitor}),
        session_id: hash({site.id, visitor, NaiveDateTime.to_date(at)}),
        scroll_depth: scroll_depth(object),
        "meta.key": keys,
        "meta.value": values,
        referrer: text(object, "referrer", 2_000) || ""
      }
      |> Map.merge(revenue(object))
      |> Map.merge(
        Map.new(@texts, fn {key, field} -> {key, text(object, field, 2_000) || ""} end)
      )
      |> Map.merge(Map.new(@utm, &{&1, text(object, "#{&1}", 2_000) || query["#{&1}"] || ""}))
      |> with_source()

    %{domain: text(object, "domain", 255), site: site, clickhouse_event: event}
  end

  defp hash(term) do
    <<hash::64, _rest::binary>> = :erlang.md5(:erlang.term_to_binary(term))
    hash
  end

  # nil when the field is absent, null or empty.
  defp text(object, field, bytes_max) do
    case object do
      %{^field => text} when is_binary(text) and byte_size(text) <= bytes_max ->
        if text != "", do: text

      %{^field => nil} ->
        nil

      %{^field => _other} ->
        invalid(field, "must be text of 1 to #{bytes_max} bytes")

      _absent ->
        nil
    end
  end

  defp site(object, sites) do
    domain = text(object, "domain", 255) || invalid("domain", "is required")

    case sites.(domain) do
      %{id: id, domain: domain} -> %{id: id, domain: domain}
      nil -> invalid("domain", "is no site that is known here")
    end
  end

  # --- where

  defp location(object) do
    case text(object, "url", 4_000) do
      nil ->
        {text(object, "hostname", 255) || "(none)", pathname(object), %{}}

      url ->
        case URI.new(url) do
          {:ok, %URI{host: host, path: path, query: query}} when is_binary(host) and host != "" ->
            {String.replace_prefix(host, "www.", ""), decoded(path || "/"), query(query)}

          _other ->
            invalid("url", "must be an absolute URL")
        end
    end
  end

  defp pathname(object) do
    case text(object, "pathname", 2_000) do
      nil -> invalid("url", "is required (or pathname)")
      "/" <> _rest = path -> path
      _other -> invalid("pathname", "must begin with /")
    end
  end

  defp decoded(path) do
    decoded = URI.decode(path)
    if String.valid?(decoded), do: decoded, else: path
  rescue
    ArgumentError -> path
  end

  defp query(nil), do: %{}

  defp query(query) do
    query = URI.decode_query(query)
    if Enum.all?(Map.values(query), &String.valid?/1), do: query, else: %{}
  rescue
    ArgumentError -> %{}
  end

  defp with_source(%{referrer_source: "", utm_source: ""} = event),
    do: %{event | referrer_source: host(event.referrer)}

  defp with_source(%{referrer_source: ""} = event),
    do: %{event | referrer_source: event.utm_source}

  defp with_source(event), do: event

  defp host(referrer) do
    case URI.new(referrer) do
      {:ok, %URI{host: host}} when is_binary(host) -> String.replace_prefix(host, "www.", "")
      _none -> ""
    end
  end

  # --- what

  defp props(%{"meta.key" => keys, "meta.value" => values})
       when is_list(keys) and is_list(values) do
    if length(keys) == length(values) and Enum.all?(keys ++ values, &is_binary/1),
      do: {keys, values},
      else: invalid("meta.value", "must be as many texts as meta.key")
  end

  # The tracker of old sent the properties as JSON in a string.
  defp props(%{"props" => props} = object) when is_binary(props),
    do: props(%{object | "props" => nested("props", props)})

  defp props(%{"props" => %{} = props}) do
    if map_size(props) > @props_max, do: invalid("props", "has more than #{@props_max} pairs")

    props
    |> Enum.reject(fn {_key, value} -> value in [nil, ""] end)
    |> Enum.map(fn {key, value} -> {prop_key(key), prop_value(key, value)} end)
    |> Enum.unzip()
  end

  defp props(%{"props" => other}) when other != nil, do: invalid("props", "must be an object")
  defp props(_none), do: {[], []}

  defp prop_key(key) do
    if byte_size(key) in 1..300, do: key, else: invalid("props", "has a name of over 300 bytes")
  end

  defp prop_value(_key, value) when is_binary(value) and byte_size(value) <= 2_000, do: value
  defp prop_value(_key, value) when is_boolean(value), do: Atom.to_string(value)
  defp prop_value(_key, value) when is_integer(value), do: Integer.to_string(value)
  defp prop_value(_key, value) when is_float(value), do: Float.to_string(value)

  defp prop_value(key, _other),
    do: invalid("props.#{key}", "must be text of at most 2000 bytes, a number or a boolean")

  defp scroll_depth(%{"scroll_depth" => depth}) when depth in 0..100 or depth == 255, do: depth

  defp scroll_depth(%{"scroll_depth" => depth}) when depth != nil,
    do: invalid("scroll_depth", "must be an integer from 0 to 100, or 255")

  defp scroll_depth(_none), do: 255

  defp revenue(%{"revenue" => revenue} = object) when is_binary(revenue),
    do: revenue(%{object | "revenue" => nested("revenue", revenue)})

  defp revenue(%{"revenue" => %{"amount" => amount, "currency" => <<_::24>> = currency}}) do
    case Text.decimal(amount) do
      nil -> invalid("revenue.amount", "must be a decimal number")
      amount -> %{revenue_source_amount: amount, revenue_source_currency: currency}
    end
  end

  defp revenue(%{"revenue" => other}) when other != nil,
    do: invalid("revenue", ~s(must be {"amount": ..., "currency": "EUR"}))

  defp revenue(_none), do: %{}

  defp nested(field, text) do
    case Native.decode(text) do
      {:ok, %{} = object} -> object
      _other -> invalid(field, "must be an object")
    end
  end

  # --- when

  defp at(%{"at" => text}) when is_binary(text) do
    with {:error, _no_offset} <- DateTime.from_iso8601(text),
         {:error, _not_a_time} <- NaiveDateTime.from_iso8601(text) do
      invalid("at", "must be a time such as 2026-11-23T10:15:30Z")
    else
      {:ok, %DateTime{} = at, _offset} ->
        at |> DateTime.to_naive() |> NaiveDateTime.truncate(:second)

      {:ok, %NaiveDateTime{} = at} ->
        NaiveDateTime.truncate(at, :second)
    end
  end

  # Seconds until the year 5138, milliseconds since 1973.
  defp at(%{"at" => seconds}) when is_integer(seconds) and seconds in 0..99_999_999_999,
    do: seconds |> DateTime.from_unix!() |> DateTime.to_naive()

  defp at(%{"at" => ms}) when is_integer(ms) and ms in 100_000_000_000..99_999_999_999_999,
    do: at(%{"at" => div(ms, 1_000)})

  defp at(%{"at" => other}) when other != nil,
    do: invalid("at", "must be a time such as 2026-11-23T10:15:30Z")

  defp at(_now), do: NaiveDateTime.utc_now() |> NaiveDateTime.truncate(:second)
end
