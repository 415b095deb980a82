defmodule Plausible.Webhooks.Deliver.Health do
  @moduledoc """
  Decides which webhooks to disable because their receiver is gone or does harm.

  A receiver that answers 410 wants no more requests: its webhook is disabled at once
  (`:gone`). A webhook that has only failed for `:disable_after_ms` (5 days) is disabled as
  `:failing`; any success starts the clock anew. A webhook that kept the engine from all
  others for more than 250 ms of processor time, three times in an hour, is disabled as
  `:costly`. No receiver is known that can do so.

  `disable`, a function given at the start, disables a webhook. This process has its own reads
  and writes, so that it does not hold up the recording.
  """

  use GenServer

  alias Plausible.Webhooks.{Attempt, Store, Webhook}
  alias Plausible.Webhooks.Runtime.{Instance, Observers}

  @retry_ms 1_000
  @slow_max 3
  @slow_ms 3_600_000

  @typedoc "How a webhook's attempts ended: of several results, the one that counts."
  @type verdict :: :delivered | :failed | :gone | :costly

  @typedoc "Disables a webhook. Returns `:ok` even if it is deleted or already disabled."
  @type disable ::
          (Instance.t(),
           Webhook.id(),
           Webhook.disabled_reason(),
           failing_for_ms :: integer() | nil ->
             :ok | {:error, term()})

  @doc "Looks at recorded attempts. Called by the Recorder."
  @spec attempts(Instance.t(), [Attempt.t()]) :: :ok
  def attempts(instance, attempts) do
    verdicts =
      for %Attempt{number: number} = attempt <- attempts, number > 0, reduce: %{} do
        verdicts ->
          Map.update(verdicts, attempt.webhook_id, verdict(attempt), &worse(&1, attempt))
      end

    # A webhook that works and was not failing needs nothing. A failure is noted here too,
    # because a success may come before the process has looked at the failure.
    for {id, verdict} <- verdicts,
        verdict != :delivered,
        do: :ets.insert(instance.tables.meta, {{:failed, id}})

    case Map.filter(verdicts, fn {id, verdict} ->
           verdict != :delivered or :ets.member(instance.tables.meta, {:failed, id}) or
             failing?(instance, id)
         end) do
      none when none == %{} -> :ok
      verdicts -> Instance.tell(instance, :health, {:verdicts, verdicts})
    end
  end

  defp verdict(%Attempt{gone: true}), do: :gone
  defp verdict(%Attempt{error: nil}), do: :delivered
  defp verdict(%Attempt{}), do: :failed

  # Of one batch: gone above all, then any success.
  defp worse(:gone, _attempt), do: :gone

  defp worse(before, attempt) do
    case verdict(attempt) do
      :gone -> :gone
      :delivered -> :delivered
      :failed -> before
    end
  end

  @doc "Notes that the webhook kept the engine busy for too long."
  @spec slow(Instance.t(), Webhook.id()) :: :ok
  def slow(instance, webhook_id), do: Instance.tell(instance, :health, {:slow, webhook_id})

  @doc "Forgets that the webhook was failing (it was changed or enabled)."
  @spec forget(Instance.t(), Webhook.id()) :: :ok
  def forget(%Instance{tables: %{meta: meta}}, webhook_id) do
    :ets.delete(meta, {:failing, webhook_id})
    :ets.delete(meta, {:failed, webhook_id})
    :ok
  end

  defp failing?(%Instance{tables: %{meta: meta}}, webhook_id),
    do: :ets.member(meta, {:failing, webhook_id})

  @doc false
  @spec start_link({Instance.name(), disable()}) :: GenServer.on_start()
  def start_link({name, disable}) do
    GenServer.start_link(__MODULE__, {name, disable}, name: Instance.process(name, :health))
  end

  # pending: verdicts that the store has not taken yet. slow: when webhooks were, lately.
  @impl true
  def init({name, disable}),
    do: {:ok, %{name: name, disable: disable, pending: %{}, slow: %{}}, {:continue, :load}}

  # Webhooks that were failing before this process started.
  @impl true
  def handle_continue(:load, state) do
    instance = Instance.fetch!(state.name)

    case Store.all_webhooks(instance) do
      {:ok, webhooks} ->
        for %Webhook{failing_since_ms: since} = webhook when since != nil <- webhooks do
          :ets.insert_new(instance.tables.meta, {{:failing, webhook.id}, since})
        end

      {:error, _reason} ->
        Process.send_after(self(), :load, @retry_ms)
    end

    {:noreply, state}
  end

  @impl true
  def handle_info({:verdicts, verdicts}, state), do: {:noreply, judge(state, verdicts)}
  def handle_info({:slow, id}, state), do: {:noreply, count_slow(state, id)}
  def handle_info(:load, state), do: {:noreply, state, {:continue, :load}}

  def handle_info(:retry, %{pending: pending} = state),
    do: {:noreply, judge(%{state | pending: %{}}, pending)}

  def handle_info(_other, state), do: {:noreply, state}

  defp count_slow(state, id) do
    now_ms = System.monotonic_time(:millisecond)
    times = [now_ms | state.slow |> Map.get(id, []) |> Enum.filter(&(&1 > now_ms - @slow_ms))]

    if length(times) < @slow_max,
      do: put_in(state.slow[id], times),
      else: judge(%{state | slow: Map.delete(state.slow, id)}, %{id => :costly})
  end

  # A newer verdict replaces one that is pending, unless that one disables the webhook.
  defp judge(state, verdicts) do
    instance = Instance.fetch!(state.name)

    verdicts =
      Map.merge(state.pending, verdicts, fn _id, old, new ->
        if old in [:gone, :costly], do: old, else: new
      end)

    pending =
      Map.filter(verdicts, fn {id, verdict} ->
        match?({:error, _}, apply_verdict(verdict, id, instance, state.disable))
      end)

    if pending != %{} and state.pending == %{},
      do: Process.send_after(self(), :retry, @retry_ms)

    %{state | pending: pending}
  end

  defp apply_verdict(verdict, id, instance, disable) when verdict in [:gone, :costly],
    do: disable.(instance, id, verdict, nil)

  defp apply_verdict(:delivered, id, instance, _disable) do
    :ets.delete(instance.tables.meta, {:failed, id})

    if failing?(instance, id) do
      with :ok <- put_failing(instance, id, nil) do
        forget(instance, id)

        with {:ok, webhook} <- Store.get_webhook(instance, id),
             do: Observers.recovered(instance, webhook)

        :ok
      end
    else
      :ok
    end
  end

  defp apply_verdict(:failed, id, %Instance{tables: %{meta: meta}} = instance, disable) do
    case :ets.lookup(meta, {:failing, id}) do
      [{_key, since_ms}] -> failed_again(instance, id, since_ms, disable)
      [] -> first_failure(instance, id, disable)
    end
  end

  defp first_failure(%Instance{tables: %{meta: meta}} = instance, id, disable) do
    case Store.get_webhook(instance, id) do
      {:ok, %Webhook{failing_since_ms: nil} = webhook} ->
        now_ms = Store.now_ms(instance)

        with :ok <- put_failing(instance, id, now_ms) do
          :ets.insert(meta, {{:failing, id}, now_ms})
          Observers.failing(instance, webhook)
        end

      {:ok, %Webhook{failing_since_ms: since_ms}} ->
        :ets.insert(meta, {{:failing, id}, since_ms})
        failed_again(instance, id, since_ms, disable)

      {:error, :not_found} ->
        :ok

      {:error, _reason} = error ->
        error
    end
  end

  # This node's clock only tells when asking the store is worthwhile.
  defp failed_again(instance, id, since_ms, disable) do
    if Instance.now_ms() - since_ms >= instance.options.disable_after_ms,
      do: disable_failing(instance, id, Store.now_ms(instance), disable),
      else: :ok
  end

  # Another node may have seen a success: the store has the last word.
  defp disable_failing(%Instance{tables: %{meta: meta}} = instance, id, now_ms, disable) do
    with {:ok, webhook} <- Store.get_webhook(instance, id),
         {:ok, delivered?} <- delivered_since?(instance, webhook) do
      cond do
        webhook.failing_since_ms == nil ->
          forget(instance, id)

        delivered? ->
          with :ok <- put_failing(instance, id, nil), do: forget(instance, id)

        now_ms - webhook.failing_since_ms < instance.options.disable_after_ms ->
          :ets.insert(meta, {{:failing, id}, webhook.failing_since_ms})
          :ok

        true ->
          disable.(instance, id, :failing, now_ms - webhook.failing_since_ms)
      end
    else
      {:error, :not_found} -> forget(instance, id)
      {:error, _reason} = error -> error
    end
  end

  defp delivered_since?(_instance, %Webhook{failing_since_ms: nil}), do: {:ok, false}

  defp delivered_since?(instance, webhook) do
    filters = %{webhook_id: webhook.id, states: [:delivered], since_ms: webhook.failing_since_ms}
    any?(instance, webhook.site_id, filters, nil)
  end

  # A page may be empty although there are more: see `t:Store.page_of/1`.
  defp any?(instance, site_id, filters, cursor) do
    page = %{limit: 1, after: cursor}

    case Store.deliveries(instance, site_id, filters, page) do
      {:ok, %{entries: [_ | _]}} -> {:ok, true}
      {:ok, %{next: nil}} -> {:ok, false}
      {:ok, %{next: next}} -> any?(instance, site_id, filters, next)
      {:error, _reason} = error -> error
    end
  end

  defp put_failing(instance, id, since_ms) do
    case Store.put_health(instance, id, %{failing_since_ms: since_ms}) do
      {:error, :not_found} -> :ok
      other -> other
    end
  end
end
