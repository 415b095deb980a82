defmodule Plausible.Webhooks.Ingest.Hooks do
  @moduledoc false
  # The functions that the host calls in its requests and jobs. If an event causes an error,
  # only that event is lost: it is counted, and the request goes on.

  alias Plausible.Webhooks.{Delivery, Id, Store}
  alias Plausible.Webhooks.Accept.Outbox
  alias Plausible.Webhooks.Ingest.{Dedup, Directory, Goals, Payload, Subscriptions, Traffic}
  alias Plausible.Webhooks.Runtime.{Instance, Observers}

  require Logger

  @disabled "webhook_disabled"
  @slice_goals_max 50
  @slice_bytes 64 * 1_024

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
  defp each(instance, _no_list), do: Observers.dropped(instance, :malformed_event, 1)

  defp event(instance, %{clickhouse_event: %{site_id: site_id}} = event)
       when is_integer(site_id) do
    with %Subscriptions{} = subscriptions <- Directory.lookup(instance, site_id) do
      subscriptions
      |> Goals.completed(event, Directory.dedup(instance))
      |> completed(instance, subscriptions, event)
    end
  end

  # Counted, so that an operator can see why nothing happens.
  defp event(instance, _of_another_shape), do: Observers.dropped(instance, :malformed_event, 1)

  # A request must not pay for what is dropped: no body is made before there is room.
  defp completed([], _instance, _subscriptions, _event), do: :ok

  defp completed(all, instance, %{site_id: site_id} = subscriptions, event) do
    {all, beyond} = within(all, instance.options.deliveries_per_event_max, [])
    dropped(instance, :fan_out, beyond)

    unless all == [] or full?(instance, site_id, all) do
      case Payload.completion(event, Instance.now_ms(), Subscriptions.tells(subscriptions)) do
        {:ok, completion} ->
          site = Payload.site(subscriptions, event)
          event = &Payload.goal_completed(site, &1, completion)
          in_slices(all, instance, event, slice(completion))

        {:error, _reason} ->
          dropped(instance, :payload, all)
      end
    end
  end

  defp within([%{webhooks: webhooks} = first | rest], left, all) when length(webhooks) <= left,
    do: within(rest, left - length(webhooks), [first | all])

  defp within(beyond, _left, all), do: {Enum.reverse(all), beyond}

  # Pushes the deliveries of several goals at a time, because a push costs more than making a
  # small body. Between large bodies the Outbox is asked whether it is full.
  defp slice(%{json: json}), do: min(div(@slice_bytes, byte_size(json)) + 1, @slice_goals_max)

  defp in_slices(all, instance, event, size) do
    {slice, rest} = Enum.split(all, size)
    [{%{site_id: site_id}, _} | _] = events = Enum.map(slice, &{event.(&1.goal), &1})
    push(instance, events)

    unless rest == [] or full?(instance, site_id, rest),
      do: in_slices(rest, instance, event, size)
  end

  defp full?(instance, site_id, completions) do
    why = Outbox.full(instance, site_id)
    if why, do: dropped(instance, why, completions)
    why != nil
  end

  defp dropped(_instance, _why, []), do: :ok

  defp dropped(instance, why, completions) do
    count = completions |> Enum.map(&length(&1.webhooks)) |> Enum.sum()
    Observers.dropped(instance, why, count)
    Enum.each(completions, &untold(instance, &1))
  end

  # The next event of the visit completes the goal.
  defp untold(instance, %{once: once}), do: Dedup.forget(Directory.dedup(instance.name), once)
  defp untold(_instance, _any_event_completes_it), do: :ok

  # An event's body is made once, for the deliveries to all webhooks. A webhook that we have
  # disabled gets a cancelled delivery, which can be recovered.
  defp push(instance, events) do
    now_ms = Instance.now_ms()

    deliveries =
      Enum.flat_map(events, fn {event, completion} ->
        case Payload.encode(event) do
          {:ok, body} ->
            Enum.map(completion.webhooks, &delivery(event, body, now_ms, &1))

          {:error, _reason} ->
            dropped(instance, :payload, [completion])
            []
        end
      end)

    with [_ | _] = dropped <- Outbox.offer(instance, deliveries) do
      goals = MapSet.new(dropped, & &1.goal_id)
      for {_event, %{goal: %{id: id}} = told} <- events, id in goals, do: untold(instance, told)
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

    case Store.get_delivery(instance, id) do
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
  @spec traffic_change(Instance.name(), :spike | :drop, integer() | map(), map()) :: :ok
  def traffic_change(name, kind, site, info) do
    with_instance(name, fn instance ->
      context = %{
        instance: name,
        deliver: &deliver_notice(name, &1)
      }

      case Traffic.change(context, kind, site, info) do
        {:ok, _told} -> :ok
        {:error, reason} -> not_passed_on(instance, reason)
      end
    end)
  end

  # The caller is a job of the host and not a request: logging may take its time.
  defp not_passed_on(instance, reason) do
    Logger.error(
      "webhooks: a traffic change was not passed on: " <>
        inspect(reason, limit: 5, printable_limit: 200)
    )

    Observers.dropped(instance, :hook_error, 1)
  end

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
    _kind, _reason -> Observers.dropped(instance, :hook_error, 1)
  end
end
