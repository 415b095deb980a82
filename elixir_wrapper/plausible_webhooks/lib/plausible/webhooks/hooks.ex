defmodule Plausible.Webhooks.Hooks do
  @moduledoc false
  # What the host calls from its own paths. Nothing here waits, and nothing raises:
  # an event that breaks something costs itself, is counted, and its request goes
  # on.

  alias Plausible.Webhooks.{
    Change,
    Delivery,
    Directory,
    Event,
    Goals,
    Id,
    Instance,
    Notifier,
    Outbox,
    Payload,
    StoreProxy,
    Subscriptions,
    Traffic
  }

  require Logger

  @disabled "webhook_disabled"

  @spec events_buffered(Instance.name(), [map()]) :: :ok
  def events_buffered(name, events) do
    case Instance.get(name) do
      nil -> :ok
      instance -> each(instance, events)
    end
  end

  defp each(instance, [event | rest]) do
    guarded(instance, fn -> event(instance, event) end)
    each(instance, rest)
  end

  defp each(_instance, []), do: :ok
  defp each(instance, _no_list), do: Notifier.dropped(instance, :malformed_event, 1)

  defp event(instance, %{clickhouse_event: %{site_id: site_id}} = event)
       when is_integer(site_id) do
    with %Subscriptions{} = subscriptions <- Directory.lookup(instance.name, site_id) do
      now_ms = Instance.now_ms()
      site = Payload.site(subscriptions, event)

      payload = &Payload.goal_completed(site, &1, event, now_ms)

      subscriptions
      |> Goals.completed(event, Directory.dedup(instance.name))
      |> completed(instance, site_id, payload, instance.options.deliveries_per_event_max)
    end
  end

  # Else nobody would see why nothing happens.
  defp event(instance, _of_another_shape), do: Notifier.dropped(instance, :malformed_event, 1)

  # What there is no room for is not made first: a request must not pay for what is
  # dropped.
  defp completed([], _instance, _site_id, _payload, _left), do: :ok

  defp completed([%{webhooks: webhooks} = first | rest] = all, instance, site_id, payload, left) do
    left = left - length(webhooks)
    why = if left < 0, do: :fan_out, else: Outbox.full(instance, site_id)

    if why do
      Notifier.dropped(instance, why, all |> Enum.map(&length(&1.webhooks)) |> Enum.sum())
    else
      deliver(instance, payload.(first.goal), webhooks)
      completed(rest, instance, site_id, payload, left)
    end
  end

  @doc """
  Makes the event's body once and a delivery for each webhook. One that we have
  disabled gets it as cancelled: on record, to be recovered.
  """
  @spec deliver(Instance.t(), Event.t(), [Subscriptions.subscriber()]) :: :ok
  def deliver(instance, event, webhooks) do
    case Payload.encode(event) do
      {:ok, body} ->
        now_ms = Instance.now_ms()
        Outbox.push(instance, Enum.map(webhooks, &delivery(event, body, now_ms, &1)))

      {:error, _reason} ->
        Notifier.dropped(instance, :payload, length(webhooks))
    end
  end

  defp delivery(event, body, now_ms, {webhook_id, status}) do
    delivery = %Delivery{
      id: Id.delivery(now_ms),
      webhook_id: webhook_id,
      site_id: event.site_id,
      type: event.type,
      goal_id: event.goal_id,
      body: body,
      created_at_ms: now_ms
    }

    case status do
      :active ->
        delivery

      :disabled ->
        %{delivery | state: :cancelled, reason: @disabled, finished_at_ms: now_ms}
    end
  end

  @doc """
  Accepts a traffic notice and returns when it is committed. A notice that was
  accepted before is not sent again.
  """
  @spec deliver_notice(Instance.name(), map()) :: :ok | {:error, term()}
  def deliver_notice(name, %{id: id, webhook_id: webhook_id, status: status, event: event}) do
    instance = Instance.fetch!(name)

    case Instance.store(instance, :get_delivery, [id]) do
      {:ok, _accepted_before} ->
        :ok

      {:error, :not_found} ->
        with {:ok, body} <- Payload.encode(event) do
          delivery = delivery(event, body, Instance.now_ms(), {webhook_id, status})
          Outbox.accept(instance, [%{delivery | id: id}])
        end

      {:error, _reason} = error ->
        error
    end
  end

  @doc "The host's own notifier has found a spike or a drop."
  @spec traffic_change(Instance.name(), Traffic.kind(), integer() | map(), map()) :: :ok
  def traffic_change(name, kind, site, info) do
    with_instance(name, fn instance ->
      context = %{
        instance: name,
        store: {StoreProxy, name},
        host: instance.options.host,
        deliver: &deliver_notice(name, &1)
      }

      case Traffic.change(context, kind, site, info) do
        {:ok, _told} -> :ok
        {:error, reason} -> not_passed_on(instance, reason)
      end
    end)
  end

  # A job of the host's, not a request: it may take the time to log.
  defp not_passed_on(instance, reason) do
    Logger.error(
      "webhooks: a traffic change was not passed on: " <>
        inspect(reason, limit: 5, printable_limit: 200)
    )

    Notifier.dropped(instance, :hook_error, 1)
  end

  @doc "The goals of a site have changed."
  @spec goals_changed(Instance.name(), integer()) :: :ok
  def goals_changed(name, site_id) when is_integer(site_id),
    do: with_instance(name, fn instance -> Change.goals_changed(instance, site_id) end)

  def goals_changed(_name, _not_a_site), do: :ok

  defp with_instance(name, fun) do
    case Instance.get(name) do
      nil -> :ok
      instance -> guarded(instance, fn -> fun.(instance) end)
    end
  end

  # Whatever `fun` does, the answer is :ok.
  defp guarded(instance, fun) do
    fun.()
    :ok
  catch
    _kind, _reason -> Notifier.dropped(instance, :hook_error, 1)
  end
end
