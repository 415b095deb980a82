defmodule Plausible.Webhooks.Deliver.Health do
  @moduledoc """
  Disables webhooks whose receiver is gone.

  A receiver that answers 410 wants no more: its webhook is disabled at once
  (`:gone`). A webhook that has only failed for `:disable_after_ms` (5 days) is
  disabled as `:failing`; any success starts the clock anew. The host tells the
  owner, what waits is cancelled and can be recovered, and events go on being
  recorded as `cancelled`, so that nothing is lost to whoever comes back.

  A process of its own: what it reads and writes must not hold up the recording.
  """

  use GenServer

  alias Plausible.Webhooks.{Attempt, Store, Webhook}
  alias Plausible.Webhooks.Manage.Changes
  alias Plausible.Webhooks.Runtime.{Instance, Isolated, Observers}

  require Logger

  @retry_ms 1_000
  @tell_owner_ms 10_000

  @type verdict :: :delivered | :failed | :gone

  @doc "Looks at recorded attempts. Called by the Recorder."
  @spec attempts(Instance.t(), [Attempt.t()]) :: :ok
  def attempts(instance, attempts) do
    verdicts =
      for %Attempt{number: number} = attempt <- attempts, number > 0, reduce: %{} do
        verdicts ->
          Map.update(verdicts, attempt.webhook_id, verdict(attempt), &worse(&1, attempt))
      end

    # A webhook that works and always did is nobody's business.
    case Map.filter(verdicts, fn {id, verdict} ->
           verdict != :delivered or failing?(instance, id)
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

  @doc "Forgets that the webhook was failing (it was changed or enabled)."
  @spec forget(Instance.t(), Webhook.id()) :: :ok
  def forget(%Instance{tables: %{meta: meta}}, webhook_id) do
    :ets.delete(meta, {:failing, webhook_id})
    :ok
  end

  defp failing?(%Instance{tables: %{meta: meta}}, webhook_id),
    do: :ets.member(meta, {:failing, webhook_id})

  @doc false
  def start_link(name),
    do: GenServer.start_link(__MODULE__, name, name: Instance.process(name, :health))

  @doc false
  def child_spec(name), do: %{id: __MODULE__, start: {__MODULE__, :start_link, [name]}}

  @impl true
  def init(name), do: {:ok, %{name: name, again: %{}}, {:continue, :load}}

  # Those that were failing before this process started.
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
  def handle_info(:load, state), do: {:noreply, state, {:continue, :load}}

  def handle_info(:again, %{again: again} = state),
    do: {:noreply, judge(%{state | again: %{}}, again)}

  def handle_info(_other, state), do: {:noreply, state}

  # What the store did not take is tried again; a newer verdict replaces it,
  # except that 410 stays 410.
  defp judge(state, verdicts) do
    instance = Instance.fetch!(state.name)

    verdicts =
      Map.merge(state.again, verdicts, fn _id, old, new ->
        if old == :gone, do: :gone, else: new
      end)

    again =
      Map.filter(verdicts, fn {id, verdict} ->
        match?({:error, _}, apply_verdict(instance, id, verdict))
      end)

    if again != %{} and state.again == %{}, do: Process.send_after(self(), :again, @retry_ms)
    %{state | again: again}
  end

  defp apply_verdict(instance, id, :gone), do: disable(instance, id, :gone, nil)

  defp apply_verdict(instance, id, :delivered) do
    if failing?(instance, id) do
      with :ok <- put_failing(instance, id, nil), do: forget(instance, id)
    else
      :ok
    end
  end

  defp apply_verdict(%Instance{tables: %{meta: meta}} = instance, id, :failed) do
    case :ets.lookup(meta, {:failing, id}) do
      [{_key, since_ms}] -> failed_again(instance, id, since_ms)
      [] -> first_failure(instance, id)
    end
  end

  defp first_failure(%Instance{tables: %{meta: meta}} = instance, id) do
    case Store.get_webhook(instance, id) do
      {:ok, %Webhook{failing_since_ms: nil}} ->
        now_ms = Store.now_ms(instance)

        with :ok <- put_failing(instance, id, now_ms) do
          :ets.insert(meta, {{:failing, id}, now_ms})
          :ok
        end

      {:ok, %Webhook{failing_since_ms: since_ms}} ->
        :ets.insert(meta, {{:failing, id}, since_ms})
        failed_again(instance, id, since_ms)

      {:error, :not_found} ->
        :ok

      {:error, _reason} = error ->
        error
    end
  end

  # Our own clock only says when it is worth asking.
  defp failed_again(instance, id, since_ms) do
    if Instance.now_ms() - since_ms >= instance.options.disable_after_ms,
      do: disable_failing(instance, id, Store.now_ms(instance)),
      else: :ok
  end

  # Another node may have seen what we have not: the store has the last word.
  defp disable_failing(%Instance{tables: %{meta: meta}} = instance, id, now_ms) do
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
          disable(instance, id, :failing, now_ms - webhook.failing_since_ms)
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

  # A page may be empty because the search has gone on for long enough.
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

  defp disable(instance, id, reason, failing_for_ms) do
    changes = fn
      %Webhook{disabled_reason: nil} = webhook ->
        {:ok, %{webhook | disabled_reason: reason, disabled_at_ms: Instance.now_ms()}}

      %Webhook{} ->
        :unchanged
    end

    case Changes.update(instance, id, changes, :disabled) do
      {:ok, webhook} ->
        forget(instance, id)
        tell_owner(instance, webhook)
        Observers.disabled(instance, webhook, failing_for_ms)

      result when result in [:unchanged, {:error, :not_found}] ->
        forget(instance, id)

      {:error, _reason} = error ->
        error
    end
  end

  # Mail may take its time, and a host its liberties.
  defp tell_owner(instance, webhook) do
    Isolated.run(
      fn -> Instance.host(instance, :webhook_disabled, [webhook, webhook.disabled_reason]) end,
      @tell_owner_ms
    )
    |> case do
      {:error, reason} ->
        Logger.error(
          "webhooks: the host could not be told that #{webhook.id} was disabled: " <>
            inspect(reason, limit: 5, printable_limit: 200)
        )

      _told ->
        :ok
    end
  end
end
