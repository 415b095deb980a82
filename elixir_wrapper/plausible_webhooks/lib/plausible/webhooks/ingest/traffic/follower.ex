defmodule Plausible.Webhooks.Ingest.Traffic.Follower do
  @moduledoc false
  # Alerts that the host's own notifier found, for the webhooks that follow it. They have no
  # state here, since the notifier keeps its own.

  alias Plausible.Webhooks.Id
  alias Plausible.Webhooks.Ingest.{Directory, Payload}
  alias Plausible.Webhooks.Ingest.Traffic.{Facts, Round, Rules}
  alias Plausible.Webhooks.Runtime.{Instance, Isolated}

  @spec change(Round.context(), Rules.kind(), integer(), map()) ::
          {:ok, non_neg_integer()} | {:error, term()}
  def change(context, kind, site_id, info) do
    case Enum.filter(Directory.traffic(context.instance, site_id), &Rules.follows?(&1, kind)) do
      [] ->
        {:ok, 0}

      webhooks ->
        timeout_ms = Map.get(context, :site_timeout_ms, 10_000)

        Isolated.run(
          context.instance,
          fn -> tell(context, kind, webhooks, site_id, info) end,
          timeout_ms
        )
    end
  end

  defp tell(%{instance: instance} = context, kind, webhooks, site_id, info) do
    now_ms = at_ms(info)

    case Instance.host(instance, :site, [site_id]) do
      nil ->
        {:ok, 0}

      %{} = site ->
        known = %{sources: rows(info[:sources], :name), pages: rows(info[:pages], :path)}
        facts = Facts.ask(instance, site, kind, info.current_visitors, now_ms, known)
        site = %{id: site.id, domain: site.domain, dashboard_url: facts.dashboard_url}
        results = Enum.map(webhooks, &tell_one(&1, context, kind, site, facts, info, now_ms))
        told = Enum.count(results, &(&1 == :ok))
        Enum.find(results, {:ok, told}, &(&1 != :ok))
    end
  end

  defp tell_one(webhook, context, kind, site, facts, info, now_ms) do
    state = %{alert_id: Id.alert(), changed_at_ms: now_ms}

    alert =
      Map.merge(
        Facts.told(facts),
        Round.alert(kind, info[:threshold], state, info.current_visitors)
      )

    event = Payload.traffic_fired(site, alert, now_ms)
    Round.deliver(context, webhook, Round.firing_id(state.alert_id), event)
  end

  defp rows(rows, key) when is_list(rows) do
    for row <- rows do
      case row do
        %{dimensions: [name | _], metrics: [visitors | _]} when is_integer(visitors) ->
          %{key => name, visitors: visitors}

        %{^key => name, visitors: visitors} when is_integer(visitors) ->
          %{key => name, visitors: visitors}
      end
    end
  end

  defp rows(nil, _key), do: nil

  defp at_ms(%{at: %NaiveDateTime{} = at}),
    do: at |> DateTime.from_naive!("Etc/UTC") |> DateTime.to_unix(:millisecond)

  defp at_ms(%{at: %DateTime{} = at}), do: DateTime.to_unix(at, :millisecond)
  defp at_ms(_info), do: System.system_time(:millisecond)
end
