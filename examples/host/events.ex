defmodule Demo.Events do
  @moduledoc """
  Reads a visitor's event from one JSON object.

  | field | meaning |
  |---|---|
  | `name` | `pageview`, `engagement` or the name of a custom event; required |
  | `domain` | the domain of the site; required |
  | `url` | the page, as an absolute URL; its query may hold `utm_` parameters; required |
  | `at` | the time, RFC 3339; default now |
  | `visitor` | any text that identifies the visitor; without it, each event is a new visitor |
  | `props` | custom properties: an object of texts, numbers and booleans |
  | `revenue` | `{"amount": "49.00", "currency": "EUR"}` |
  | `scroll_depth` | 0 to 100, the percentage of the page that the visitor has seen |
  | `referrer` | the URL that the visitor came from |
  | `source`, `country`, `device`, `browser`, `os` | text |

  Other fields are ignored. The result has the shape that
  `Plausible.Webhooks.events_buffered/1` takes.
  """

  alias Plausible.Webhooks.Native

  @utm ~w(utm_source utm_medium utm_campaign utm_content utm_term)a

  @typedoc "Returns the site with this domain, or `nil`."
  @type sites :: (String.t() -> %{id: integer(), domain: String.t()} | nil)

  @doc "Returns the event, or the first field that is wrong and why."
  @spec parse(binary(), sites()) :: {:ok, map()} | {:error, String.t()}
  def parse(json, sites) do
    case Native.decode(json) do
      {:ok, %{} = object} -> {:ok, event(object, sites)}
      {:ok, _other} -> {:error, "is not a JSON object"}
      {:error, {reason, offset}} -> {:error, "is not JSON (#{reason} at byte #{offset})"}
    end
  catch
    {:invalid, message} -> {:error, message}
  end

  @doc "Parses one event per line. Yields each result with the number of its line."
  @spec stream(Enumerable.t(), sites()) :: Enumerable.t()
  def stream(lines, sites) do
    lines
    |> Stream.with_index(1)
    |> Stream.reject(fn {line, _number} -> String.trim(line) == "" end)
    |> Stream.map(fn {line, number} -> {number, parse(line, sites)} end)
  end

  defp event(object, sites) do
    domain = required(object, "domain")
    site = sites.(domain) || invalid("domain", "is not a site of this host")
    uri = uri(required(object, "url"))
    query = URI.decode_query(uri.query || "")
    utm = Map.new(@utm, &{&1, Map.get(query, "#{&1}", "")})
    referrer = text(object, "referrer", "")
    at = at(object["at"])
    visitor = text(object, "visitor", "#{System.unique_integer()}")

    event = %{
      name: required(object, "name"),
      site_id: site.id,
      hostname: uri.host,
      pathname: URI.decode(uri.path || "/"),
      timestamp: at,
      user_id: hash({site.id, visitor}),
      # All events of a visitor on one day are one visit.
      session_id: hash({site.id, visitor, NaiveDateTime.to_date(at)}),
      scroll_depth: scroll_depth(object["scroll_depth"]),
      referrer: referrer,
      referrer_source: text(object, "source", source(utm.utm_source, referrer)),
      country_code: text(object, "country", ""),
      screen_size: text(object, "device", ""),
      browser: text(object, "browser", ""),
      operating_system: text(object, "os", "")
    }

    event = event |> Map.merge(utm) |> Map.merge(props(object["props"] || %{}))
    %{site: site, clickhouse_event: Map.merge(event, revenue(object["revenue"]))}
  end

  @spec invalid(String.t(), String.t()) :: no_return()
  defp invalid(field, message), do: throw({:invalid, "#{field}: #{message}"})

  defp required(object, field), do: text(object, field, nil) || invalid(field, "is required")

  defp text(object, field, default) do
    case object[field] do
      empty when empty in [nil, ""] -> default
      text when is_binary(text) and byte_size(text) <= 2_000 -> text
      _other -> invalid(field, "must be text of at most 2000 bytes")
    end
  end

  defp uri(url) do
    case URI.new(url) do
      {:ok, %URI{host: host} = uri} when is_binary(host) and host != "" -> uri
      _other -> invalid("url", "must be an absolute URL")
    end
  end

  defp source("", referrer) do
    case URI.new(referrer) do
      {:ok, %URI{host: host}} when is_binary(host) -> String.replace_prefix(host, "www.", "")
      _no_host -> ""
    end
  end

  defp source(utm_source, _referrer), do: utm_source

  # Erlang's time, as deliveries have it; the system's clock may be ahead of it.
  defp at(nil), do: System.system_time(:second) |> DateTime.from_unix!() |> DateTime.to_naive()

  defp at(text) do
    with true <- is_binary(text), {:ok, at, _offset} <- DateTime.from_iso8601(text) do
      at |> DateTime.to_naive() |> NaiveDateTime.truncate(:second)
    else
      _not_a_time -> invalid("at", "must be a time such as 2026-11-23T10:15:30Z")
    end
  end

  # 255 means that no depth was measured.
  defp scroll_depth(nil), do: 255
  defp scroll_depth(depth) when depth in 0..100, do: depth
  defp scroll_depth(_other), do: invalid("scroll_depth", "must be an integer from 0 to 100")

  defp props(%{} = props) do
    values =
      for {key, value} <- props do
        if is_binary(value) or is_number(value) or is_boolean(value),
          do: to_string(value),
          else: invalid("props.#{key}", "must be text, a number or a boolean")
      end

    %{"meta.key": Map.keys(props), "meta.value": values}
  end

  defp props(_other), do: invalid("props", "must be an object")

  defp revenue(nil), do: %{}

  defp revenue(%{"amount" => amount, "currency" => <<_::24>> = currency})
       when is_binary(amount) or is_number(amount),
       do: %{revenue_source_amount: to_string(amount), revenue_source_currency: currency}

  defp revenue(_other), do: invalid("revenue", ~s(must be {"amount": "49.00", "currency": "EUR"}))

  defp hash(term) do
    <<hash::64, _rest::binary>> = :erlang.md5(:erlang.term_to_binary(term))
    hash
  end
end
