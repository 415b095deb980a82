defmodule Plausible.Webhooks.Runtime.Observers do
  @moduledoc false
  # Calls the observers and writes to the log, in a process of its own, so that an observer may
  # hang or raise. At most @waiting_max notices wait. Without an observer none are sent.
  #
  # Drops are logged here. Rejected: logging where they happen, which would be a log call in
  # the middle of each request. They are warnings and not errors: hosts count errors, and
  # their own alarms report a database that is away.

  use GenServer

  alias Plausible.Webhooks.{Attempt, Delivery, Webhook}
  alias Plausible.Webhooks.Runtime.Instance

  require Logger

  @waiting_max 10_000
  @report_ms 1_000
  @repeat_ms 10_000
  # Lines about one webhook that fails or recovers, and about all of them in a minute.
  @webhook_repeat_ms 3_600_000
  @webhook_lines_max 20
  @minute_ms 60_000
  @attempt_keys ~w(delivery_id webhook_id site_id destination number state status error
                   next_at_ms)a
  @terminal [:delivered, :failed, :cancelled]

  # --- what happened

  @spec attempts(Instance.t(), [Attempt.t()]) :: :ok
  def attempts(instance, attempts), do: notice(instance, length(attempts), {:attempts, attempts})

  @spec accepted(Instance.t(), [Delivery.t(), ...]) :: :ok
  def accepted(%Instance{options: %{observers: []}}, _deliveries), do: :ok

  def accepted(instance, deliveries) do
    metadata = %{sites: Enum.frequencies_by(deliveries, & &1.site_id)}
    notice(instance, 1, {:event, :deliveries_accepted, %{count: length(deliveries)}, metadata})
  end

  @spec overloaded(Instance.t(), pos_integer()) :: :ok
  def overloaded(instance, count),
    do: notice(instance, 1, {:event, :engine_overloaded, %{count: count}, %{}})

  @doc "Counts what was dropped; cheap enough for a request."
  @spec dropped(Instance.t(), atom(), pos_integer()) :: :ok
  def dropped(%Instance{tables: %{meta: meta}} = instance, reason, count) do
    Instance.count(instance, :dropped, count)
    _ = :ets.update_counter(meta, {:dropped, reason}, count, {{:dropped, reason}, 0})
    :ok
  rescue
    # The tables are gone: the instance has just been stopped.
    ArgumentError -> :ok
  end

  @doc "What was dropped since the start, by reason."
  @spec dropped(Instance.t()) :: %{atom() => pos_integer()}
  def dropped(%Instance{tables: %{meta: meta}}) do
    Map.new(:ets.select(meta, [{{{:dropped, :"$1"}, :"$2"}, [], [{{:"$1", :"$2"}}]}]))
  end

  @spec store_failed(Instance.t(), atom(), term()) :: :ok
  def store_failed(instance, operation, reason),
    do: event(instance, :store_failed, %{}, %{operation: operation, reason: reason})

  @doc "A call of the store, however it ended."
  @spec store_called(Instance.t(), atom(), integer(), term()) :: :ok
  def store_called(%Instance{options: %{observers: []}}, _function, _native, _result), do: :ok

  def store_called(instance, function, native, result) do
    measurements = %{duration_us: System.convert_time_unit(native, :native, :microsecond)}
    error = if match?({:error, _reason}, result), do: elem(result, 1)
    metadata = %{operation: function, error: error}
    notice(instance, 1, {:event, :store_call, measurements, metadata})
  end

  @doc "Other nodes could not be told of a change."
  @spec cluster_failed(Instance.t(), term()) :: :ok
  def cluster_failed(instance, reason),
    do: event(instance, :cluster_failed, %{}, %{reason: reason})

  @spec changed(Instance.t(), integer(), String.t(), atom()) :: :ok
  def changed(instance, site_id, webhook_id, change) do
    metadata = %{site_id: site_id, webhook_id: webhook_id, change: change}
    event(instance, :webhook_changed, %{}, metadata)
  end

  @spec disabled(Instance.t(), Webhook.t(), integer() | nil) :: :ok
  def disabled(instance, webhook, failing_for_ms) do
    metadata = Map.put(about(webhook), :reason, webhook.disabled_reason)
    event(instance, :webhook_disabled, %{failing_for_ms: failing_for_ms}, metadata)
  end

  @doc "An attempt failed, and the one before did not."
  @spec failing(Instance.t(), Webhook.t()) :: :ok
  def failing(instance, webhook), do: event(instance, :webhook_failing, %{}, about(webhook))

  @doc "An attempt succeeded, and the one before did not."
  @spec recovered(Instance.t(), Webhook.t()) :: :ok
  def recovered(instance, webhook), do: event(instance, :webhook_recovered, %{}, about(webhook))

  defp about(webhook) do
    destination = Webhook.destination(webhook)
    %{site_id: webhook.site_id, webhook_id: webhook.id, destination: destination}
  end

  @doc "A webhook (`nil`: several) took so much of the engine's time at once."
  @spec slow(Instance.t(), integer() | nil, Webhook.id() | nil, pos_integer()) :: :ok
  def slow(instance, site_id, webhook_id, took_ms) do
    metadata = %{site_id: site_id, webhook_id: webhook_id}
    event(instance, :engine_slow, %{took_ms: took_ms}, metadata)
  end

  # These events are rare and logged: sent without a bound, and even without an observer.
  defp event(instance, event, measurements, metadata),
    do: tell(instance, {:event, event, measurements, metadata})

  # These notices are bounded, and not sent without an observer.

  defp notice(%Instance{options: %{observers: []}}, _weight, _notice), do: :ok

  defp notice(instance, weight, notice) do
    if Instance.add_gauge(instance, :notices, weight) <= @waiting_max do
      tell(instance, {:notice, weight, notice})
    else
      Instance.add_gauge(instance, :notices, -weight)
      Instance.count(instance, :notices_dropped, weight)
    end
  end

  defp tell(instance, message), do: Instance.tell(instance, :observers, message)

  # --- the process

  def start_link(name),
    do: GenServer.start_link(__MODULE__, name, name: Instance.process(name, :observers))

  def child_spec(name), do: %{id: __MODULE__, start: {__MODULE__, :start_link, [name]}}

  @impl true
  def init(name) do
    instance = Instance.fetch!(name)
    Process.flag(:trap_exit, true)
    # The notices that waited for a predecessor are gone.
    Instance.add_gauge(instance, :notices, -Instance.add_gauge(instance, :notices, 0))
    Process.send_after(self(), :report, @report_ms)
    minute = System.monotonic_time(:millisecond)
    {:ok, %{name: name, logged: %{}, reported: %{}, minute: minute, lines: 0}}
  end

  @impl true
  def handle_info({:notice, weight, notice}, state) do
    instance = Instance.fetch!(state.name)
    Instance.add_gauge(instance, :notices, -weight)
    handle_notice(instance, notice)
    {:noreply, state}
  end

  def handle_info({:event, event, measurements, metadata}, state) do
    emit(Instance.fetch!(state.name), event, measurements, metadata)
    {:noreply, log(state, event, Map.merge(measurements, metadata))}
  end

  def handle_info(:report, state) do
    Process.send_after(self(), :report, @report_ms)
    {:noreply, Instance.fetch!(state.name) |> report_dropped(state) |> next_minute()}
  end

  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(reason, state) do
    if Instance.stopping?(reason), do: report_dropped(Instance.fetch!(state.name), state)
  end

  defp handle_notice(instance, {:attempts, attempts}),
    do: Enum.each(attempts, &emit_attempt(instance, &1))

  defp handle_notice(instance, {:event, event, measurements, metadata}),
    do: emit(instance, event, measurements, metadata)

  defp emit_attempt(instance, attempt) do
    metadata = Map.take(attempt, @attempt_keys)

    if attempt.number > 0 do
      timings = Map.take(attempt, [:total_us, :dns_us, :connect_us, :tls_us, :first_byte_us])
      emit(instance, :attempt, timings, metadata)
    end

    if attempt.state in @terminal,
      do: emit(instance, :delivery_finished, %{attempts: attempt.number}, metadata)
  end

  defp log(state, :store_failed, %{operation: operation, reason: reason}) do
    text = "the store failed to #{operation}: #{inspect(reason)}"
    log_once(state, {:store, operation}, text)
  end

  defp log(state, :cluster_failed, %{reason: reason}) do
    reason = inspect(reason, limit: 5, printable_limit: 200)
    text = "other nodes could not be told of a change and will notice it later: #{reason}"
    log_once(state, :cluster_failed, text)
  end

  defp log(state, :webhook_disabled, %{webhook_id: id} = webhook) do
    text = "#{id} (#{webhook.destination}) of site #{webhook.site_id} was disabled"
    Logger.warning("webhooks: #{text}: #{webhook.reason}")
    state
  end

  defp log(state, event, %{webhook_id: id} = webhook)
       when event in [:webhook_failing, :webhook_recovered] do
    known = Map.has_key?(state.logged, {:webhook_failing, id})

    cond do
      # The end of what was not told, or a webhook that has failed and recovered lately.
      known != (event == :webhook_recovered) -> state
      state.lines >= @webhook_lines_max -> %{state | lines: state.lines + 1}
      true -> log_webhook(%{state | lines: state.lines + 1}, event, webhook)
    end
  end

  defp log(state, :engine_slow, %{webhook_id: id, took_ms: took_ms}) do
    whom = if id, do: "webhook #{id}", else: "several webhooks"
    log_once(state, {:slow, id}, "the engine was busy for #{took_ms} ms with #{whom}")
  end

  defp log(state, _event, _metadata), do: state

  defp log_webhook(state, event, %{webhook_id: id} = webhook) do
    text = "#{id} (#{webhook.destination}) of site #{webhook.site_id}"
    does = if event == :webhook_failing, do: "begins to fail", else: "has recovered"
    log_once(state, {event, id}, "#{text} #{does}", @webhook_repeat_ms)
  end

  # Also forgets what may be logged again.
  defp next_minute(state) do
    now = System.monotonic_time(:millisecond)

    if now - state.minute < @minute_ms do
      state
    else
      more = state.lines - @webhook_lines_max

      if more > 0,
        do: Logger.warning("webhooks: #{more} more webhooks began to fail or recovered")

      logged = Map.filter(state.logged, fn {_kind, until} -> until > now end)
      %{state | minute: now, lines: 0, logged: logged}
    end
  end

  defp emit(instance, event, measurements, metadata) do
    metadata = Map.put(metadata, :instance, instance.name)

    for {module, argument} <- instance.options.observers do
      guarded(instance, fn -> module.handle_event(event, measurements, metadata, argument) end)
    end

    :ok
  end

  defp guarded(instance, fun) do
    fun.()
    :ok
  catch
    kind, reason ->
      Instance.count(instance, :observer_errors)

      Logger.error(
        "webhooks: an observer failed: " <> Exception.format(kind, reason, __STACKTRACE__)
      )
  end

  defp report_dropped(instance, state),
    do: Enum.reduce(dropped(instance), state, &report_dropped(instance, &1, &2))

  defp report_dropped(instance, {reason, total}, state) do
    case total - Map.get(state.reported, reason, 0) do
      0 ->
        state

      count ->
        state = put_in(state.reported[reason], total)
        text = "deliveries dropped (#{reason}): #{total} since the start"
        state = log_once(state, {:dropped, reason}, text)
        emit(instance, :deliveries_dropped, %{count: count}, %{reason: reason})
        state
    end
  end

  # A line of a kind at most every `repeat_ms`.
  defp log_once(state, kind, text, repeat_ms \\ @repeat_ms) do
    now = System.monotonic_time(:millisecond)

    case state.logged do
      %{^kind => until} when now < until ->
        state

      _long_ago ->
        Logger.warning("webhooks: " <> text)
        put_in(state.logged[kind], now + repeat_ms)
    end
  end
end
