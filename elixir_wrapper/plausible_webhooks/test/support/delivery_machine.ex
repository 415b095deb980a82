defmodule Plausible.Webhooks.Test.DeliveryMachine do
  @moduledoc false
  # PropEr's state machine of what may happen to deliveries: `proper_statem` calls these
  # functions to make sequences of commands, and compares what each command returns with the
  # model. `Plausible.Webhooks.Test.DeliveryRun` carries the commands out, and judges at the end
  # what became of each delivery.
  #
  # The model knows what the engine cannot change: which webhooks are on, off or deleted, how
  # many deliveries there are, and which of them were accepted. A webhook has a number (slot),
  # a delivery too, so that a shorter sequence of commands still makes sense.
  #
  # Nothing here is called if PropEr (Debian's erlang-proper) is not installed.

  alias Plausible.Webhooks.Test.DeliveryRun

  @compile {:no_warn_undefined, [:proper, :proper_types, :proper_statem]}

  @slots [1, 2, 3]
  @parts [:engine, :outbox, :recorder, :sweeper, :health, :sqlite]
  @answers [200, 204, 503, 500, 404, :close, {:delay, 5, 200}, {:delay, 15, 503}]

  @doc """
  Runs `count` sequences. Returns `:ok`, or the shortest sequence that was found to fail and
  what was short.
  """
  def check(worker, count) do
    # A node of its own, to be killed as a whole, takes a second to start.
    place = :proper_types.frequency([{60, :here}, {1, :peer}])
    sequence = :proper_types.tuple([place, :proper_statem.commands(__MODULE__)])
    property = :proper.forall(sequence, &holds?(worker, &1))

    if :proper.quickcheck(property, [:quiet, {:numtests, count}]),
      do: :ok,
      else: Process.get(:short)
  end

  defp holds?(worker, {place, commands}) do
    short = short(worker, place, commands)

    calls =
      for {:set, _variable, {:call, _module, :carry_out, [name, arguments]}} <- commands,
          do: {name, arguments}

    # The last one is the shortest.
    if short != [], do: Process.put(:short, {place, calls, short})
    short == []
  end

  # PropEr does not survive an exception.
  defp short(worker, place, commands) do
    run = DeliveryRun.start(worker, place)

    try do
      case :proper_statem.run_commands(__MODULE__, commands) do
        {_history, _state, :ok} -> DeliveryRun.judge(run)
        {history, _state, result} -> [{result, List.last(history)}]
      end
    after
      DeliveryRun.stop()
    end
  catch
    kind, reason -> [Exception.format(kind, reason, __STACKTRACE__)]
  end

  # --- the model

  def initial_state, do: %{webhooks: Map.new(@slots, &{&1, :none}), deliveries: []}

  def command(state) do
    always = [
      {3, call(:wait, [:proper_types.integer(0, 40)])},
      {1, call(:kill, [:proper_types.oneof(@parts)])},
      {1, call(:restart, [])},
      {1, call(:die, [])}
    ]

    of_webhooks =
      for {weight, name, more} <- [
            {8, :submit, [script()]},
            {4, :push, [:proper_types.integer(1, 5), script()]},
            {6, :create, []},
            {2, :put, [:proper_types.integer(1, 2)]},
            {1, :delete, []},
            {1, :pause, []},
            {3, :resume, []},
            {1, :cancel_held, []},
            {1, :recover, []}
          ],
          slots = slots(state, name),
          slots != [],
          do: {weight, call(name, [:proper_types.oneof(slots) | more])}

    redeliver =
      for numbers <- [Enum.map(state.deliveries, &elem(&1, 0))],
          numbers != [],
          do: {4, call(:redeliver, [:proper_types.oneof(numbers)])}

    :proper_types.frequency(always ++ of_webhooks ++ redeliver)
  end

  # The webhooks that a command may have.
  defp slots(state, name),
    do: for({slot, status} <- state.webhooks, status in wanted(name), do: slot)

  defp wanted(:create), do: [:none, :deleted]
  # An event may be on its way while its webhook is deleted.
  defp wanted(:submit), do: [:on, :off, :deleted]
  defp wanted(name) when name in [:resume, :cancel_held], do: [:off]
  defp wanted(name) when name in [:pause, :recover], do: [:on]
  defp wanted(name) when name in [:push, :put, :delete], do: [:on, :off]

  defp script, do: :proper_types.resize(5, :proper_types.list(:proper_types.oneof(@answers)))
  defp call(name, arguments), do: {:call, DeliveryRun, :carry_out, [name, arguments]}

  def precondition(state, {:call, _module, :carry_out, [:redeliver, [number]]}),
    do: List.keymember?(state.deliveries, number, 0)

  def precondition(state, {:call, _module, :carry_out, [name, arguments]}),
    do: name in [:wait, :kill, :restart, :die] or hd(arguments) in slots(state, name)

  def next_state(state, _result, {:call, _module, :carry_out, [name, [slot | _more]]})
      when name in [:create, :resume],
      do: put_in(state.webhooks[slot], :on)

  def next_state(state, _result, {:call, _module, :carry_out, [:delete, [slot]]}) do
    gone = fn {number, of} -> {number, if(of == slot, do: :deleted, else: of)} end
    state = put_in(state.webhooks[slot], :deleted)
    %{state | deliveries: Enum.map(state.deliveries, gone)}
  end

  def next_state(state, _result, {:call, _module, :carry_out, [:pause, [slot]]}),
    do: put_in(state.webhooks[slot], :off)

  def next_state(state, _result, {:call, _module, :carry_out, [:submit, [slot, _script]]}) do
    of = if state.webhooks[slot] == :deleted, do: :deleted, else: slot
    %{state | deliveries: state.deliveries ++ [{length(state.deliveries) + 1, of}]}
  end

  def next_state(state, _result, _call), do: state

  # A redelivery finds no engine for a moment after a death.
  def postcondition(state, {:call, _module, :carry_out, [:redeliver, [number]]}, result) do
    case List.keyfind(state.deliveries, number, 0) do
      {_number, :deleted} -> result == :not_found
      {_number, slot} when slot in @slots -> result in redelivered(state.webhooks[slot])
    end
  end

  def postcondition(_state, {:call, _module, :carry_out, [:recover, _arguments]}, result),
    do: result in [:ok, :unavailable]

  def postcondition(_state, _call, result), do: result == :ok

  defp redelivered(:on), do: [:ok, :unavailable]
  defp redelivered(:off), do: [:webhook_disabled]
end
