defmodule Plausible.Webhooks.Deliver.Endpoints do
  @moduledoc false
  # Sees to it that the engine knows where deliveries go.
  #
  # An endpoint is put into the engine when a delivery first needs it, and again when its
  # webhook changes. Both may happen at the same time in different processes; the webhook's
  # version decides. A reader puts the endpoint and then enters its version. If it finds a
  # newer version there, it has put an old endpoint and reads again. A change enters its
  # version before it puts. So the newest endpoint is put last. Rejected: a lock, or a
  # process that everyone would wait for.
  #
  # The table of versions belongs to the engine and dies with it:
  #   {webhook_id, version, status, checked_at_ms, site_id, destination}  (monotonic time)
  # A deleted webhook has the version :deleted, which is greater than any integer.
  #
  # Throws :stopped when the engine is gone.

  alias Plausible.Webhooks.{Attempt, Delivery, Native, Store, Webhook}
  alias Plausible.Webhooks.Deliver.Owners
  alias Plausible.Webhooks.Runtime.Instance

  @type status :: :live | :paused | :disabled | :missing | {:refused, atom()}

  # Another node may have changed the webhook. It sends a message (Cluster), and the Directory
  # compares all webhooks every minute. This limit is for when neither works.
  @fresh_ms 150_000
  # A store that keeps answering with an old version (a lagging replica) must not hold up the
  # caller forever.
  @rereads_max 3

  # --- what observers are told

  @doc "The attempts with site and destination, where the engine knows them."
  @spec locate(Instance.t(), [Attempt.t()]) :: [Attempt.t()]
  def locate(instance, attempts) do
    engine = Owners.engine(instance)
    Enum.map(attempts, &Map.merge(&1, place(engine, &1.webhook_id)))
  end

  defp place(nil, _webhook_id), do: %{site_id: nil, destination: nil}

  defp place(engine, webhook_id) do
    case row(engine, webhook_id) do
      [{_id, _version, _status, _checked, site_id, destination}] ->
        %{site_id: site_id, destination: destination}

      [] ->
        place(nil, webhook_id)
    end
  catch
    :stopped -> place(nil, webhook_id)
  end

  @doc "The site of a webhook, where the engine knows it."
  @spec site_id(:ets.table(), Webhook.id()) :: integer() | nil
  def site_id(endpoints, webhook_id) do
    case :ets.lookup(endpoints, webhook_id) do
      [{_id, _version, _status, _checked, site_id, _destination}] -> site_id
      [] -> nil
    end
  end

  @doc """
  What becomes of a delivery that the engine has let go of, since it lost the endpoint. It is
  held unless we know better: the store sends it again if its webhook is not paused.
  """
  @spec let_go(:ets.table(), Webhook.id()) :: {Delivery.state(), reason :: String.t() | nil}
  def let_go(endpoints, webhook_id) do
    case :ets.lookup(endpoints, webhook_id) do
      [{_id, :deleted, _status, _checked, _site, _destination}] -> {:cancelled, "webhook_deleted"}
      [{_id, _, :disabled, _checked, _site, _destination}] -> {:cancelled, "webhook_disabled"}
      _paused_or_active_again -> {:held, nil}
    end
  end

  # --- changes

  @doc "Tells the engine about a webhook that was created or changed."
  @spec changed(Instance.t(), Webhook.t()) :: :ok
  def changed(instance, %Webhook{} = webhook) do
    with_engine(instance, fn engine ->
      _ = enter(engine, webhook, status(webhook))
      put(instance, engine, webhook, @rereads_max)
    end)
  end

  @doc "Tells the engine that a webhook was deleted."
  @spec deleted(Instance.t(), Webhook.id()) :: :ok
  def deleted(instance, webhook_id), do: with_engine(instance, &forget(&1, webhook_id))

  @doc """
  Compares the engine's endpoints with all webhooks as they were read from the store. A
  webhook that is missing in that reading may be newer than it, and is read by itself.
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

          %{^id => _same} ->
            :ets.update_element(engine.endpoints, id, {4, System.monotonic_time(:millisecond)})

          _missing ->
            read(instance, engine, id, [], @rereads_max)
        end
      end
    end)
  end

  @doc "Puts the endpoint of a webhook that may be disabled, for a test."
  @spec put_for_test(Instance.t(), Owners.engine(), Webhook.t()) :: :ok | {:error, atom()}
  def put_for_test(instance, engine, webhook) do
    if Webhook.active?(webhook) do
      _ = put(instance, engine, webhook, @rereads_max)
      :ok
    else
      _ = enter(engine, webhook, status(webhook))
      native_put(engine, webhook)
    end
  catch
    :stopped -> {:error, :unavailable}
  end

  defp with_engine(instance, fun) do
    with %{} = engine <- Owners.engine(instance), do: fun.(engine)
    :ok
  catch
    :stopped -> :ok
  end

  # --- reading

  @doc """
  What to do with deliveries to these webhooks. `:unknown` while the store is away. One call
  of the store reads all webhooks that have to be read.
  """
  @spec statuses(Instance.t(), Owners.engine(), [Webhook.id()]) ::
          %{Webhook.id() => status() | :unknown}
  def statuses(instance, engine, webhook_ids) do
    since_ms = System.monotonic_time(:millisecond) - @fresh_ms
    rows = Map.new(webhook_ids, &{&1, row(engine, &1)})
    {fresh, others} = Enum.split_with(rows, fn {_id, row} -> fresh?(row, since_ms) end)
    known = Map.new(fresh, fn {id, [row]} -> {id, elem(row, 2)} end)
    Map.merge(known, read_some(instance, engine, others))
  end

  # What would be held is worth a look: the webhook may have been resumed elsewhere.
  defp fresh?([row], since_ms), do: elem(row, 2) != :paused and elem(row, 3) > since_ms
  defp fresh?([], _since_ms), do: false

  defp read_some(_instance, _engine, []), do: %{}

  defp read_some(instance, engine, rows) do
    case Store.get_webhooks(instance, Enum.map(rows, &elem(&1, 0))) do
      {:ok, webhooks} ->
        found = Map.new(webhooks, &{&1.id, {:ok, &1}})

        Map.new(rows, fn {id, row} ->
          read = Map.get(found, id, {:error, :not_found})
          {id, take(read, instance, engine, id, row, @rereads_max)}
        end)

      {:error, reason} = error ->
        # One of them may be what cannot be read.
        read =
          if Store.away?(reason), do: fn _id -> error end, else: &Store.get_webhook(instance, &1)

        Map.new(rows, fn {id, row} ->
          {id, take(read.(id), instance, engine, id, row, @rereads_max)}
        end)
    end
  end

  defp read(instance, engine, webhook_id, rows, rereads) do
    instance
    |> Store.get_webhook(webhook_id)
    |> take(instance, engine, webhook_id, rows, rereads)
  end

  defp take(read, instance, engine, webhook_id, rows, rereads) do
    case {read, rows} do
      # Still paused. A test may have put the endpoint.
      {{:ok, %{version: version}}, [{_id, version, :paused, _checked, _site, _destination}]} ->
        :paused

      {{:ok, webhook}, _rows} ->
        put(instance, engine, webhook, rereads)

      {{:error, :not_found}, _rows} ->
        forget(engine, webhook_id)
        :missing

      {{:error, _reason}, [{_id, _version, status, _checked, _site, _destination}]} ->
        status

      {{:error, _reason}, []} ->
        :unknown
    end
  end

  defp put(instance, engine, webhook, rereads) do
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
      status(webhook)
    end
  end

  defp status(%Webhook{enabled: false}), do: :paused
  defp status(webhook), do: if(Webhook.active?(webhook), do: :live, else: :disabled)

  defp native_put(engine, webhook) do
    with {:error, :stopped} <- Native.put_endpoint(engine.ref, endpoint(webhook)),
         do: throw(:stopped)
  rescue
    # The stores of these packages hold no such data; another store might.
    ArgumentError -> {:error, :malformed}
  end

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

  # --- the table

  defp forget(engine, webhook_id) do
    row = {webhook_id, :deleted, :missing, System.monotonic_time(:millisecond), nil, nil}
    in_table(fn -> :ets.insert(engine.endpoints, row) end)
    Native.delete_endpoint(engine.ref, webhook_id)
  end

  defp row(engine, webhook_id), do: in_table(fn -> :ets.lookup(engine.endpoints, webhook_id) end)

  # In one step, so that an older version never overwrites a newer one.
  defp enter(%{endpoints: table}, webhook, status) do
    checked_at_ms = System.monotonic_time(:millisecond)
    destination = Webhook.destination(webhook)
    row = {webhook.id, webhook.version, status, checked_at_ms, webhook.site_id, destination}
    older = {webhook.id, :"$1", :_, :_, :_, :_}
    replace = {older, [{:"=<", :"$1", webhook.version}], [{:const, row}]}

    in_table(fn ->
      :ets.insert_new(table, row) or
        :ets.select_replace(table, [replace]) == 1
    end)
  end

  # The table dies with the engine.
  defp in_table(fun) do
    fun.()
  rescue
    ArgumentError -> throw(:stopped)
  end
end
