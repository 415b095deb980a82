defmodule Plausible.Ingestion.Request do
  @moduledoc false

  defstruct [
    :remote_ip,
    :user_agent,
    :event_name,
    :uri,
    :hostname,
    :pathname,
    :referrer,
    :domains,
    :props,
    :scroll_depth,
    :revenue_source,
    :query_params,
    :timestamp
  ]

  def build(conn, now \\ NaiveDateTime.utc_now()) do
    {body, conn} = body(conn)

    with url when is_binary(url) <- body["u"] || body["url"],
         domains when is_binary(domains) <- body["d"] || body["domain"],
         name when is_binary(name) <- body["n"] || body["name"] do
      uri = URI.parse(url)

      request = %__MODULE__{
        remote_ip: conn.remote_ip |> :inet.ntoa() |> to_string(),
        user_agent: conn |> Plug.Conn.get_req_header("user-agent") |> List.first(),
        event_name: name,
        uri: uri,
        hostname: uri.host || "(none)",
        pathname: uri.path || "/",
        referrer: body["r"] || body["referrer"],
        domains: String.split(domains, ","),
        props: props(body["p"] || body["props"] || %{}),
        scroll_depth: body["sd"],
        revenue_source: revenue(body["$"] || body["revenue"]),
        query_params: URI.decode_query(uri.query || ""),
        timestamp: NaiveDateTime.truncate(now, :second)
      }

      {:ok, request, conn}
    else
      _missing -> {:error, :malformed}
    end
  end

  # The tracker says text/plain, to be spared a preflight request.
  defp body(conn) do
    {:ok, text, conn} = Plug.Conn.read_body(conn)

    case Jason.decode(text) do
      {:ok, %{} = body} -> {body, conn}
      _other -> {conn.body_params, conn}
    end
  end

  defp props(props), do: Map.new(props, fn {key, value} -> {key, to_string(value)} end)

  defp revenue(%{"amount" => amount, "currency" => currency}),
    do: %{amount: amount |> to_string() |> Decimal.new(), currency: currency}

  defp revenue(_none), do: nil
end
