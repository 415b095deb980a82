defmodule Plausible.Ingestion.Event do
  @moduledoc false
  alias Plausible.Ingestion.Request
  alias Plausible.ClickhouseEventV2
  alias Plausible.Site.GateKeeper

  defstruct domain: nil,
            site: nil,
            clickhouse_event_attrs: %{},
            clickhouse_session_attrs: %{},
            clickhouse_event: nil,
            dropped?: false,
            drop_reason: nil,
            request: nil

  def build_and_buffer(%Request{domains: domains} = request, context \\ []) do
    processed_events =
      Enum.reduce(domains, [], fn domain, acc ->
        case GateKeeper.check(domain) do
          {:allow, site} ->
            processed =
              domain
              |> new(site, request)
              |> process_unless_dropped(pipeline(), context)

            [processed | acc]

          {:deny, reason} ->
            [drop(new(domain, nil, request), reason) | acc]
        end
      end)

    {dropped, buffered} = Enum.split_with(processed_events, & &1.dropped?)
    {:ok, %{dropped: dropped, buffered: buffered}}
  end

  defp pipeline do
    [
      drop_bot: &drop_bot/2,
      put_basic_info: &put_basic_info/2,
      put_source_info: &put_source_info/2,
      put_props: &put_props/2,
      put_revenue: &put_revenue/2,
      put_user_id: &put_user_id/2,
      validate_clickhouse_event: &validate_clickhouse_event/2,
      register_session: &register_session/2
    ]
  end

  defp process_unless_dropped(%__MODULE__{} = initial_event, pipeline, context) do
    Enum.reduce_while(pipeline, initial_event, fn {_step_name, step_fn}, acc_event ->
      case step_fn.(acc_event, context) do
        %__MODULE__{dropped?: true} = dropped -> {:halt, dropped}
        %__MODULE__{dropped?: false} = event -> {:cont, event}
      end
    end)
  end

  defp new(domain, site, request) do
    struct!(__MODULE__, domain: domain, site: site, request: request)
  end

  defp drop(event, reason), do: %{event | dropped?: true, drop_reason: reason}

  defp drop_bot(%{request: %{user_agent: "bot" <> _}} = event, _context), do: drop(event, :bot)
  defp drop_bot(event, _context), do: event

  defp put_basic_info(%{request: request} = event, _context) do
    update_event_attrs(event, %{
      site_id: event.site.id,
      timestamp: request.timestamp,
      name: request.event_name,
      hostname: request.hostname,
      pathname: request.pathname,
      scroll_depth: request.scroll_depth || 255
    })
  end

  defp put_source_info(%{request: request} = event, _context) do
    params = request.query_params

    attrs = %{
      referrer: request.referrer || "",
      referrer_source: params["utm_source"] || host_of(request.referrer),
      utm_source: params["utm_source"] || "",
      utm_medium: params["utm_medium"] || "",
      utm_campaign: params["utm_campaign"] || "",
      country_code: "EE",
      screen_size: "Desktop",
      operating_system: "Linux",
      browser: "Firefox"
    }

    %{event | clickhouse_session_attrs: Map.merge(event.clickhouse_session_attrs, attrs)}
  end

  defp host_of(nil), do: ""
  defp host_of(referrer), do: URI.parse(referrer).host || ""

  defp put_props(%{request: %{props: props}} = event, _context) do
    {keys, values} = Enum.unzip(props)
    update_event_attrs(event, %{"meta.key": keys, "meta.value": values})
  end

  # Of a revenue goal of that name alone, as Plausible keeps it.
  defp put_revenue(%{request: %{revenue_source: %{} = revenue}} = event, _context) do
    if Enum.any?(event.site.goals, &(&1.currency && &1.event_name == event.request.event_name)) do
      update_event_attrs(event, %{
        revenue_source_amount: revenue.amount,
        revenue_source_currency: revenue.currency,
        revenue_reporting_amount: revenue.amount,
        revenue_reporting_currency: revenue.currency
      })
    else
      event
    end
  end

  defp put_revenue(event, _context), do: event

  defp put_user_id(%{request: request} = event, _context) do
    from = {request.user_agent, request.remote_ip, event.domain}
    update_event_attrs(event, %{user_id: :erlang.phash2(from, 4_294_967_296)})
  end

  defp update_event_attrs(event, attrs),
    do: %{event | clickhouse_event_attrs: Map.merge(event.clickhouse_event_attrs, attrs)}

  defp validate_clickhouse_event(event, _context) do
    case event.clickhouse_event_attrs
         |> ClickhouseEventV2.new()
         |> Ecto.Changeset.apply_action(nil) do
      {:ok, clickhouse_event} -> %{event | clickhouse_event: clickhouse_event}
      {:error, _changeset} -> drop(event, :invalid)
    end
  end

  defp register_session(event, _context) do
    case Plausible.Ingestion.Persistor.persist_event(event) do
      {:ok, event} -> event
      {:error, reason} -> drop(event, reason)
    end
  end
end
