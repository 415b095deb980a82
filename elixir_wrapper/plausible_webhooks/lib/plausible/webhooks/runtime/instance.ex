defmodule Plausible.Webhooks.Runtime.Instance do
  @moduledoc false
  # What the parts of one running instance share, and how they find each other.
  #
  # The struct is kept in persistent_term, so that a request reads it without a copy and
  # without asking a process. Its key is the instance's name alone, because an atom is found
  # in half the time of a tuple. The tables belong to the top supervisor: what is queued in them
  # outlives every process that works on it.
  #
  #   queue    {{round, number}, delivery, reply_to, in_doubt}  deliveries that are not known to be
  #            committed (Outbox)
  #   journal  {key, attempt, time_offset_ms}  attempts not recorded yet (Recorder)
  #   meta     the open store, the engine in charge and former owners (Owners), which webhooks
  #            are failing (Health), what was dropped (Observers)
  #   waiters  {delivery_id, alias}       who waits for an attempt (test sends; suspects)
  #   rates    {key, count}               windows of rate limits
  #   shares   {site_id, count, bytes, round}  about how much of the queue each site has, and
  #            the round in which its last delivery is taken

  @type name :: atom()
  @type t :: %__MODULE__{}

  defstruct [:name, :names, :options, :tables, :flags, :counters]

  @processes ~w(supervisor tasks store observers health recorder engine outbox directory inbox
                sweeper evaluator)a
  @flags %{
    outbox_awake: 1,
    recorder_awake: 2,
    closed: 3,
    notices: 4,
    outbox_bytes: 5,
    outbox_round: 6
  }
  @counters %{
    pushed: 1,
    accepted: 2,
    recorded: 3,
    dropped: 4,
    refused: 5,
    observer_errors: 6,
    notices_dropped: 7
  }

  @doc "Makes the tables; they belong to the calling process."
  @spec new(options :: map()) :: t()
  def new(%{name: _name} = options) do
    shared = [:public, read_concurrency: true]

    %__MODULE__{
      name: options.name,
      names: Map.new(@processes, &{&1, process(options.name, &1)}),
      options: options,
      tables: %{
        queue: :ets.new(:webhooks_queue, [:ordered_set, :public]),
        journal: :ets.new(:webhooks_journal, [:ordered_set, :public]),
        meta: :ets.new(:webhooks_meta, [:set | shared]),
        waiters: :ets.new(:webhooks_waiters, [:bag | shared]),
        rates: :ets.new(:webhooks_rates, [:set, :public]),
        shares: :ets.new(:webhooks_shares, [:set, :public, write_concurrency: true])
      },
      flags: :atomics.new(map_size(@flags), signed: true),
      counters: :counters.new(map_size(@counters), [:write_concurrency])
    }
  end

  @doc "Makes the instance known under its name."
  @spec publish(t()) :: :ok
  def publish(%__MODULE__{name: name} = instance),
    do: :persistent_term.put(name, instance)

  @doc "Forgets the instance."
  @spec retract(name()) :: :ok
  def retract(name) do
    _ = :persistent_term.erase(name)
    :ok
  end

  @spec get(name()) :: t() | nil
  def get(name), do: :persistent_term.get(name, nil)

  @spec fetch!(name()) :: t()
  def fetch!(name) do
    get(name) || raise ArgumentError, "no webhooks instance #{inspect(name)} is running"
  end

  @doc "The registered name of one of the instance's processes."
  @spec process(t() | name(), atom()) :: atom()
  def process(%__MODULE__{names: names}, part), do: Map.fetch!(names, part)

  def process(name, part) when part in @processes,
    do: Module.concat(name, part |> Atom.to_string() |> Macro.camelize())

  @doc "Sends, if the process is there; never raises."
  @spec tell(t(), atom(), term()) :: :ok
  def tell(%__MODULE__{names: names}, part, message) do
    case Process.whereis(Map.fetch!(names, part)) do
      nil -> :ok
      pid -> send(pid, message)
    end

    :ok
  end

  # --- flags and counters

  @doc "Raises the flag; true if it was down (then the caller wakes the process)."
  @spec raise_flag(t(), atom()) :: boolean()
  def raise_flag(%__MODULE__{flags: flags}, flag),
    do: :atomics.exchange(flags, Map.fetch!(@flags, flag), 1) == 0

  @spec lower_flag(t(), atom()) :: :ok
  def lower_flag(%__MODULE__{flags: flags}, flag),
    do: :atomics.put(flags, Map.fetch!(@flags, flag), 0)

  @spec flag?(t(), atom()) :: boolean()
  def flag?(%__MODULE__{flags: flags}, flag),
    do: :atomics.get(flags, Map.fetch!(@flags, flag)) > 0

  @doc "Adds to a gauge that shares the flags' words; returns the new value."
  @spec add_gauge(t(), atom(), integer()) :: integer()
  def add_gauge(%__MODULE__{flags: flags}, gauge, n),
    do: :atomics.add_get(flags, Map.fetch!(@flags, gauge), n)

  @spec put_gauge(t(), atom(), integer()) :: :ok
  def put_gauge(%__MODULE__{flags: flags}, gauge, n),
    do: :atomics.put(flags, Map.fetch!(@flags, gauge), n)

  @spec gauge(t(), atom()) :: integer()
  def gauge(%__MODULE__{flags: flags}, gauge), do: :atomics.get(flags, Map.fetch!(@flags, gauge))

  @spec count(t(), atom(), integer()) :: :ok
  def count(%__MODULE__{counters: counters}, counter, n \\ 1),
    do: :counters.add(counters, Map.fetch!(@counters, counter), n)

  @spec counts(t()) :: %{atom() => integer()}
  def counts(%__MODULE__{counters: counters}),
    do: Map.new(@counters, fn {name, index} -> {name, :counters.get(counters, index)} end)

  # --- the host

  @doc "Calls the host; it may raise, exit or hang (`Plausible.Webhooks.Runtime.Isolated`)."
  @spec host(t() | name(), atom(), [term()]) :: term()
  def host(%__MODULE__{options: %{host: {module, argument}}}, function, arguments),
    do: apply(module, function, [argument | arguments])

  def host(name, function, arguments), do: name |> fetch!() |> host(function, arguments)

  @doc "Whether this is the reason of a stop that is wanted, and not of a crash."
  @spec stopping?(term()) :: boolean()
  def stopping?(reason), do: reason in [:normal, :shutdown] or match?({:shutdown, _}, reason)

  @spec now_ms() :: integer()
  def now_ms, do: System.system_time(:millisecond)
end
