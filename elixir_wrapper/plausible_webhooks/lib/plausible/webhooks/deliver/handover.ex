defmodule Plausible.Webhooks.Deliver.Handover do
  @moduledoc false
  # Gives committed deliveries to the engine, and gives those back to the store for which the
  # engine has no room.

  alias Plausible.Webhooks.{Attempt, Delivery, Native, Store}
  alias Plausible.Webhooks.Deliver.{Endpoints, Owners, Recorder}
  alias Plausible.Webhooks.Runtime.{Instance, Observers}

  @doc """
  Submits the deliveries that can be sent. Those of webhooks that are disabled, deleted or
  refused end here, those of paused ones are held, and both is recorded. Returns those for which
  the engine had no room.
  """
  @spec submit(Instance.t(), Owners.engine(), [Delivery.t()]) ::
          {:ok, left_over :: [Delivery.t()]} | {:error, :stopped}
  def submit(_instance, _engine, []), do: {:ok, []}

  def submit(instance, engine, deliveries) do
    statuses = statuses(instance, engine, deliveries)
    groups = Enum.group_by(deliveries, &fate(&1, Map.fetch!(statuses, &1.webhook_id)))
    ended = for {{:ended, status}, some} <- groups, delivery <- some, do: ended(delivery, status)
    Recorder.put(instance, ended)

    with {:ok, left_over} <- to_engine(instance, engine, Map.get(groups, :ready, [])) do
      if left_over != [], do: Observers.overloaded(instance, length(left_over))
      {:ok, Map.get(groups, :unknown, []) ++ left_over}
    end
  catch
    :stopped -> {:error, :stopped}
  end

  defp statuses(instance, engine, deliveries) do
    ids = deliveries |> Enum.map(& &1.webhook_id) |> Enum.uniq()
    Endpoints.statuses(instance, engine, ids)
  end

  @doc "Reads what `submit/3` would otherwise read from the store for these deliveries."
  @spec look_up(Instance.t(), Owners.engine() | nil, [Delivery.t()]) :: :ok
  def look_up(_instance, nil, _deliveries), do: :ok

  def look_up(instance, engine, deliveries) do
    _ = statuses(instance, engine, deliveries)
    :ok
  catch
    :stopped -> :ok
  end

  defp fate(_delivery, :live), do: :ready
  defp fate(_delivery, :unknown), do: :unknown
  # A test goes to a paused or disabled webhook too; its sender has put the endpoint.
  defp fate(%Delivery{retry: false}, status) when status in [:paused, :disabled], do: :ready
  defp fate(_delivery, status), do: {:ended, status}

  defp to_engine(_instance, _engine, []), do: {:ok, []}

  defp to_engine(instance, engine, ready) do
    case native_submit(engine, ready) do
      {:ok, taken} -> {:ok, Enum.drop(ready, taken)}
      {:error, :overloaded} -> {:ok, ready}
      {:error, :stopped} -> {:error, :stopped}
      {:error, reason} -> one_by_one(instance, engine, ready, reason)
    end
  end

  # A delivery that can never be sent must not take the others with it.
  defp one_by_one(instance, _engine, [delivery], reason) do
    Recorder.put(instance, [ended(delivery, {:refused, reason})])
    {:ok, []}
  end

  defp one_by_one(instance, engine, ready, _reason) do
    Enum.reduce_while(ready, {:ok, []}, fn delivery, {:ok, left_over} ->
      case to_engine(instance, engine, [delivery]) do
        {:ok, left} -> {:cont, {:ok, left ++ left_over}}
        error -> {:halt, error}
      end
    end)
  end

  defp native_submit(engine, ready) do
    Native.submit(engine.ref, in_engine_time(engine, ready))
  rescue
    ArgumentError -> {:error, :malformed}
  end

  # See Engine.
  defp in_engine_time(engine, deliveries) do
    case engine.time_offset_ms - System.time_offset(:millisecond) do
      0 -> deliveries
      leapt_ms -> Enum.map(deliveries, &move_due(&1, leapt_ms))
    end
  end

  defp move_due(%Delivery{next_at_ms: nil} = delivery, _leapt_ms), do: delivery
  defp move_due(delivery, leapt_ms), do: %{delivery | next_at_ms: delivery.next_at_ms + leapt_ms}

  @doc """
  Submits, and gives back to the store the deliveries that the engine did not take. Those of a
  stopped engine come back by themselves, because its owner is dead.
  """
  @spec submit_or_release(Instance.t(), Owners.engine(), [Delivery.t()]) :: :ok
  def submit_or_release(instance, engine, deliveries) do
    case submit(instance, engine, deliveries) do
      {:ok, []} -> :ok
      {:ok, left_over} -> release(instance, engine.owner, Enum.map(left_over, & &1.id))
      {:error, :stopped} -> :ok
    end
  end

  @doc """
  Gives deliveries back to the store. If that fails they are remembered: a delivery that has a
  living owner, but is in no engine, would wait forever.
  """
  @spec release(Instance.t(), Store.owner(), [String.t()]) :: :ok
  def release(instance, owner, ids) do
    with {:error, _reason} <- Store.release(instance, owner, ids, Instance.now_ms()) do
      :ets.insert(instance.tables.meta, Enum.map(ids, &{{:unplaced, &1}, owner}))
      :ok
    end
  end

  @doc "Tries again to give back what could not be given back."
  @spec release_unplaced(Instance.t()) :: :ok
  def release_unplaced(%Instance{tables: %{meta: meta}} = instance) do
    rows = :ets.select(meta, [{{{:unplaced, :"$1"}, :"$2"}, [], [{{:"$2", :"$1"}}]}])

    for {owner, ids} <- Enum.group_by(rows, &elem(&1, 0), &elem(&1, 1)) do
      Enum.each(ids, &:ets.delete(meta, {:unplaced, &1}))
      release(instance, owner, ids)
    end

    :ok
  end

  # --- deliveries that end, or are held, without an attempt

  @doc "Ends a delivery that has ended its node again and again."
  @spec give_up(Instance.t(), Delivery.t()) :: :ok
  def give_up(instance, delivery), do: Recorder.put(instance, [ended(delivery, :node_ended)])

  defp ended(delivery, status) do
    {state, error, detail} = ending(status)

    %Attempt{
      delivery_id: delivery.id,
      webhook_id: delivery.webhook_id,
      number: 0,
      owner: delivery.owner,
      state: state,
      error: error,
      detail: detail,
      started_at_ms: Instance.now_ms()
    }
  end

  defp ending(:paused), do: {:held, nil, nil}
  defp ending(:disabled), do: {:cancelled, :cancelled, "webhook_disabled"}
  defp ending(:missing), do: {:cancelled, :unknown_webhook, "webhook_deleted"}
  defp ending(:node_ended), do: {:failed, :internal, "node_ended"}
  defp ending({:refused, reason}), do: {:failed, :internal, "refused: #{reason}"}
end
