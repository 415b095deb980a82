defmodule Plausible.Webhooks.Deliver.Handover do
  @moduledoc false
  # Gives committed deliveries to the engine, and sees to it that the engine
  # knows where they go.
  #
  # Endpoints are put when a delivery first needs them, and pushed at once when a
  # webhook changes. Both may happen at the same moment in different processes;
  # the webhook's version settles it. Whoever puts an endpoint enters its version
  # afterwards; whoever finds a newer one there has put something old and does it
  # again. A change enters its version before it puts. Either way the newest is
  # put last, without a lock and without a process that all would wait for.
  #
  # The table of versions is the engine's (it dies with it, as do its endpoints):
  #   {webhook_id, version, status, checked_at_ms, site_id, host}   (monotonic time)
  # A deleted webhook has the version :deleted, which is greater than any integer.

  alias Plausible.Webhooks.{Attempt, Delivery, Native, Store, Webhook}
  alias Plausible.Webhooks.Deliver.{Engine, Recorder}
  alias Plausible.Webhooks.Runtime.{Instance, Observers}

  @type status :: :live | :disabled | :missing | {:refused, atom()}

  # Another node may have changed the webhook; it tells us at once if there is a way
  # (Cluster), and this is for when there is none.
  @fresh_ms 60_000

  @doc """
  Submits what can be sent. Deliveries of webhooks that are disabled, deleted or
  refused end here, on record. Returns what the engine had no room for.
  """
  @spec submit(Instance.t(), Engine.t(), [Delivery.t()]) ::
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
    deliveries
    |> Enum.uniq_by(& &1.webhook_id)
    |> Map.new(&{&1.webhook_id, status(instance, engine, &1.webhook_id)})
  end

  @doc "Reads from the store what a `submit/3` of these would have to read."
  @spec look_up(Instance.t(), Engine.t() | nil, [Delivery.t()]) :: :ok
  def look_up(_instance, nil, _deliveries), do: :ok

  def look_up(instance, engine, deliveries) do
    _ = statuses(instance, engine, deliveries)
    :ok
  catch
    :stopped -> :ok
  end

  defp fate(_delivery, :live), do: :ready
  defp fate(_delivery, :unknown), do: :unknown
  # A test is sent once, to a webhook that may be disabled: its sender has put the
  # endpoint.
  defp fate(%Delivery{retry: false}, :disabled), do: :ready
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

  # One that can never be sent must not take the others with it.
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
  Submits, and gives back to the store what the engine did not take. What a
  stopped engine owns comes back by itself: its owner is no more.
  """
  @spec submit_or_release(Instance.t(), Engine.t(), [Delivery.t()]) :: :ok
  def submit_or_release(instance, engine, deliveries) do
    case submit(instance, engine, deliveries) do
      {:ok, []} -> :ok
      {:ok, left_over} -> release(instance, engine.owner, Enum.map(left_over, & &1.id))
      {:error, :stopped} -> :ok
    end
  end

  @doc """
  Gives deliveries back to the store. If even that fails they are remembered: a
  row that is owned by a living owner and known to no engine would wait for ever.
  """
  @spec release(Instance.t(), String.t(), [String.t()]) :: :ok
  def release(instance, owner, ids) do
    case Store.release(instance, owner, ids, Instance.now_ms()) do
      :ok ->
        :ok

      {:error, _reason} ->
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

  @doc "What the log needs to know about a webhook: its site and its host name."
  @spec known(Engine.t() | nil, Webhook.id()) :: {integer(), String.t()} | nil
  def known(nil, _webhook_id), do: nil

  def known(engine, webhook_id) do
    case row(engine, webhook_id) do
      [{_id, _version, _status, _checked, site_id, host}] when site_id != nil -> {site_id, host}
      _other -> nil
    end
  catch
    :stopped -> nil
  end

  # --- endpoints

  @doc "Tells the engine about a webhook that was created or changed."
  @spec changed(Instance.t(), Webhook.t()) :: :ok
  def changed(instance, %Webhook{} = webhook) do
    with_engine(instance, fn engine ->
      _ = enter(engine, webhook, if(Webhook.active?(webhook), do: :live, else: :disabled))
      put(instance, engine, webhook)
    end)
  end

  @doc "Tells the engine that a webhook is no more."
  @spec deleted(Instance.t(), Webhook.id()) :: :ok
  def deleted(instance, webhook_id), do: with_engine(instance, &forget(&1, webhook_id))

  @doc """
  Compares what the engine has with all webhooks as they were read from the store.
  What is missing there may have been inserted after that: it is read by itself.
  """
  @spec compare(Instance.t(), [Webhook.t()]) :: :ok
  def compare(instance, webhooks) do
    stored = Map.new(webhooks, &{&1.id, &1})

    with_engine(instance, fn engine ->
      known = [{{:"$1", :"$2", :_, :_, :_, :_}, [{:is_integer, :"$2"}], [{{:"$1", :"$2"}}]}]

      for {id, version} <- in_table(fn -> :ets.select(engine.endpoints, known) end) do
        case stored do
          %{^id => %Webhook{version: newer} = webhook} when newer > version ->
            changed(instance, webhook)

          %{^id => _the_same} ->
            :ok

          _missing ->
            read(instance, engine, id, [])
        end
      end
    end)
  end

  @doc "Puts the endpoint of a webhook that may be disabled, for a test."
  @spec put_for_test(Instance.t(), Engine.t(), Webhook.t()) :: :ok | {:error, atom()}
  def put_for_test(instance, engine, webhook) do
    if Webhook.active?(webhook) do
      _ = put(instance, engine, webhook)
      :ok
    else
      _ = enter(engine, webhook, :disabled)
      native_put(engine, webhook)
    end
  catch
    :stopped -> {:error, :unavailable}
  end

  defp with_engine(instance, fun) do
    case Engine.current(instance) do
      nil -> :ok
      engine -> fun.(engine)
    end

    :ok
  catch
    :stopped -> :ok
  end

  @spec status(Instance.t(), Engine.t(), Webhook.id()) :: status() | :unknown
  defp status(instance, engine, webhook_id) do
    now_ms = System.monotonic_time(:millisecond)

    case row(engine, webhook_id) do
      [{_id, _version, status, checked_at_ms, _site, _host}]
      when checked_at_ms > now_ms - @fresh_ms ->
        status

      rows ->
        read(instance, engine, webhook_id, rows)
    end
  end

  defp read(instance, engine, webhook_id, rows, rereads \\ 3) do
    case Store.get_webhook(instance, webhook_id) do
      {:ok, webhook} ->
        put(instance, engine, webhook, rereads)

      {:error, :not_found} ->
        forget(engine, webhook_id)
        :missing

      {:error, _reason} ->
        case rows do
          [{_id, _version, status, _checked, _site, _host}] -> status
          [] -> :unknown
        end
    end
  end

  # Bounded: a store that answers with something old (a replica that lags) must
  # not keep us here.
  defp put(instance, engine, webhook, rereads \\ 3) do
    status = to_native(engine, webhook)

    if enter(engine, webhook, status) or rereads == 0,
      do: status,
      else: read(instance, engine, webhook.id, [], rereads - 1)
  end

  defp to_native(engine, webhook) do
    if Webhook.active?(webhook) do
      case native_put(engine, webhook) do
        :ok -> :live
        {:error, reason} -> {:refused, reason}
      end
    else
      _ = Native.delete_endpoint(engine.ref, webhook.id)
      :disabled
    end
  end

  defp native_put(engine, webhook) do
    with {:error, :stopped} <- Native.put_endpoint(engine.ref, endpoint(webhook)),
         do: throw(:stopped)
  rescue
    # Nothing that we store looks like that; a store of somebody else's might.
    ArgumentError -> {:error, :malformed}
  end

  defp forget(engine, webhook_id) do
    in_table(fn -> :ets.insert(engine.endpoints, missing(webhook_id)) end)
    Native.delete_endpoint(engine.ref, webhook_id)
  end

  defp row(engine, webhook_id), do: in_table(fn -> :ets.lookup(engine.endpoints, webhook_id) end)

  # One step, so that an older version never overwrites a newer one.
  defp enter(%{endpoints: table}, webhook, status) do
    checked_at_ms = System.monotonic_time(:millisecond)
    host = Webhook.host(webhook)
    row = {webhook.id, webhook.version, status, checked_at_ms, webhook.site_id, host}

    in_table(fn ->
      :ets.insert_new(table, row) or
        :ets.select_replace(table, [
          {{webhook.id, :"$1", :_, :_, :_, :_}, [{:"=<", :"$1", webhook.version}],
           [{:const, row}]}
        ]) == 1
    end)
  end

  # The table is gone, and the engine with it.
  defp in_table(fun) do
    fun.()
  rescue
    ArgumentError -> throw(:stopped)
  end

  defp missing(webhook_id),
    do: {webhook_id, :deleted, :missing, System.monotonic_time(:millisecond), nil, nil}

  defp endpoint(webhook) do
    %{
      webhook_id: webhook.id,
      url: webhook.url,
      keys: Enum.map(Webhook.live_keys(webhook, Instance.now_ms()), &key/1),
      headers: webhook.headers
    }
  end

  defp key(%{key: key, expires_at_ms: nil}), do: key
  defp key(%{key: key, expires_at_ms: expires_at_ms}), do: {key, expires_at_ms}

  # --- deliveries that end without an attempt

  defp ended(delivery, status) do
    {state, error, detail} = ending(status)

    %Attempt{
      delivery_id: delivery.id,
      webhook_id: delivery.webhook_id,
      number: 0,
      state: state,
      error: error,
      detail: detail,
      started_at_ms: Instance.now_ms()
    }
  end

  defp ending(:disabled), do: {:cancelled, :cancelled, "webhook_disabled"}
  defp ending(:missing), do: {:cancelled, :unknown_webhook, "webhook_deleted"}
  defp ending({:refused, reason}), do: {:failed, :internal, "refused: #{reason}"}
end
