defmodule Plausible.Webhooks.Manage.DeliveryLog do
  @moduledoc false
  # Reads the delivery log, and sends again what is in it. `Plausible.Webhooks` documents the
  # functions.

  alias Plausible.Webhooks.{Event, Store, Webhook}
  alias Plausible.Webhooks.Deliver.Sweeper
  alias Plausible.Webhooks.Manage.{Access, Webhooks}
  alias Plausible.Webhooks.Runtime.Instance

  @slice 500
  @states [:pending, :parked, :held, :delivered, :failed, :cancelled]

  def deliveries(instance, actor, site_id, filters, page) do
    with :ok <- Access.check(instance, actor, :read, site_id),
         {:ok, filters} <- pick(filters, &filter/2),
         {:ok, page} <- pick(page, &page/2),
         {bodies?, page} = Map.pop(page, :bodies, false),
         {:ok, found} <- Store.deliveries(instance, site_id, filters, page) do
      {:ok,
       if(bodies?,
         do: %{found | entries: Enum.map(found.entries, &body(instance, &1))},
         else: found
       )}
    end
  end

  # One read by the primary key for each: a page has few, and a store's walk along an index
  # stays free of bodies.
  defp body(instance, %{id: id} = delivery) do
    case Store.get_delivery(instance, id) do
      {:ok, %{body: body}} -> %{delivery | body: body}
      {:error, _gone_or_away} -> delivery
    end
  end

  def delivery(instance, actor, site_id, id) do
    with :ok <- Access.check(instance, actor, :read, site_id),
         do: Access.delivery(instance, site_id, id)
  end

  def attempts(instance, actor, site_id, id) do
    with {:ok, _delivery} <- delivery(instance, actor, site_id, id),
         do: Store.attempts(instance, id)
  end

  def redeliver(instance, actor, site_id, id) do
    with :ok <- Access.check(instance, actor, :manage, site_id),
         {:ok, delivery} <- Access.delivery(instance, site_id, id),
         {:ok, webhook} <- active(instance, site_id, delivery.webhook_id),
         {:ok, sent} <- Sweeper.redeliver(instance, [id], @states) do
      Webhooks.audit(instance, actor, :webhook_redelivered, webhook)
      if sent == [id], do: :ok, else: {:error, :not_found}
    end
  end

  def recover(instance, actor, site_id, webhook_id, since) do
    with :ok <- Access.check(instance, actor, :manage, site_id),
         {:ok, since_ms} <- to_ms(since),
         {:ok, webhook} <- active(instance, site_id, webhook_id),
         # Collects all ids first, so that a delivery that fails again at once is not found
         # a second time.
         {:ok, ids, more?} <- recoverable(instance, webhook_id, since_ms),
         {:ok, count} <- in_slices(instance, ids) do
      Webhooks.audit(instance, actor, :webhook_recovered, webhook)
      {:ok, %{count: count, more?: more?}}
    end
  end

  @doc "The ids of what one recovery sends again, and whether there are more."
  @spec recoverable(Instance.t(), Webhook.id(), DateTime.t() | integer()) ::
          {:ok, [String.t()], boolean()} | {:error, term()}
  def recoverable(instance, webhook_id, since) do
    max = instance.options.recover_max

    with {:ok, since_ms} <- to_ms(since),
         {:ok, ids} <- Store.recoverable(instance, webhook_id, since_ms, max + 1),
         do: {:ok, Enum.take(ids, max), length(ids) > max}
  end

  defp active(instance, site_id, webhook_id) do
    with {:ok, webhook} <- Access.webhook(instance, site_id, webhook_id) do
      if Webhook.active?(webhook), do: {:ok, webhook}, else: {:error, :webhook_disabled}
    end
  end

  defp in_slices(instance, ids) do
    ids
    |> Enum.chunk_every(@slice)
    |> Enum.reduce_while({:ok, 0}, fn slice, {:ok, count} ->
      # Another recovery may have been faster.
      case Sweeper.redeliver(instance, slice, [:failed, :cancelled]) do
        {:ok, sent} -> {:cont, {:ok, count + length(sent)}}
        {:error, _reason} = error -> {:halt, error}
      end
    end)
  end

  # --- checking filters and page

  defp to_ms(%DateTime{} = time), do: {:ok, DateTime.to_unix(time, :millisecond)}
  defp to_ms(ms) when is_integer(ms), do: {:ok, ms}

  defp to_ms(_other),
    do: {:error, {:invalid, %{since: "must be a DateTime or Unix milliseconds"}}}

  # The error names the first value that is wrong.
  defp pick(given, check) do
    if not (Keyword.keyword?(given) or (is_map(given) and not is_struct(given))),
      do: raise(ArgumentError, "expected a map or a keyword list, got: #{inspect(given)}")

    Enum.reduce_while(given, {:ok, %{}}, fn
      {key, value}, {:ok, picked} ->
        case check.(key, value) do
          {:ok, value} -> {:cont, {:ok, Map.put(picked, key, value)}}
          {:error, message} -> {:halt, {:error, {:invalid, %{key => message}}}}
        end
    end)
  end

  defp filter(:webhook_id, id) when is_binary(id), do: {:ok, id}
  defp filter(:goal_id, id) when is_integer(id), do: {:ok, id}
  defp filter(:status_class, class) when class in [2, 3, 4, 5, :none], do: {:ok, class}

  defp filter(key, time) when key in [:since_ms, :until_ms] do
    with {:error, _reason} <- to_ms(time), do: {:error, "must be Unix milliseconds"}
  end

  defp filter(:states, states), do: some_of(states, @states)
  defp filter(:types, types), do: some_of(types, Event.types())

  defp filter(key, _value) when key in [:webhook_id, :goal_id, :status_class],
    do: {:error, "is not valid"}

  defp filter(_key, _value), do: {:error, "is not a filter"}

  defp some_of(values, known) do
    # Without duplicates the list has a bound.
    if is_list(values) and not List.improper?(values) and values != [] and
         Enum.all?(values, &(&1 in known)),
       do: {:ok, Enum.uniq(values)},
       else: {:error, "must be a list of some of #{inspect(known)}"}
  end

  defp page(:after, nil), do: {:ok, nil}
  defp page(:after, cursor) when is_binary(cursor), do: {:ok, cursor}
  defp page(:limit, limit) when limit in 1..200, do: {:ok, limit}
  defp page(:bodies, bodies?) when is_boolean(bodies?), do: {:ok, bodies?}
  defp page(:after, _other), do: {:error, "must be the cursor of the last page"}
  defp page(:limit, _other), do: {:error, "must be an integer from 1 to 200"}
  defp page(_key, _value), do: {:error, "is not a part of a page"}
end
