defmodule Plausible.Webhooks.Test.Crash.VM do
  @moduledoc false
  # A VM of its own (Crash.Node) as an operating system process, to be killed. What
  # it says that it has accepted goes into a table, with the time at which we heard of
  # it.

  use GenServer

  alias Plausible.Webhooks.Test.Crash.Node

  @ready_ms 60_000
  @answer_ms 60_000

  @type t :: pid()

  @doc """
  Starts one, without waiting for it. Options: `:config` (`t:Crash.Node.config/0`),
  `:file`, where to put that; `:told`, the table `{n, webhook_id, at_ms}`, which
  also gets `{{:last, vm}, nil, at_ms}`; `:environment`; `:flags` of the emulator.
  """
  @spec start(keyword()) :: t()
  def start(options) do
    {:ok, vm} = GenServer.start_link(__MODULE__, options)
    vm
  end

  @doc "Waits until it is ready; `{:error, text}` when it has ended instead."
  @spec ready(t()) :: :ok | {:error, String.t()}
  def ready(vm), do: GenServer.call(vm, :ready, @ready_ms)

  @spec load(t(), pos_integer(), pos_integer(), pos_integer()) :: :ok
  def load(vm, workers, per_s, count), do: tell(vm, "load #{workers} #{per_s} #{count}")

  @doc "Ends the load; how many events the hook was given since the start."
  @spec idle(t()) :: non_neg_integer()
  def idle(vm), do: GenServer.call(vm, {:ask, "idle"}, @answer_ms)

  @spec stats(t()) :: map()
  def stats(vm), do: GenServer.call(vm, {:ask, "stats"}, @answer_ms)

  @spec hog(t(), pos_integer()) :: :ok
  def hog(vm, ms), do: tell(vm, "hog #{ms}")

  @doc "Every owner that its engine had."
  @spec owners(t()) :: [String.t()]
  def owners(vm), do: GenServer.call(vm, :owners)

  @doc "`kill -9`; returns when it is gone."
  @spec kill(t()) :: :ok
  def kill(vm), do: GenServer.call(vm, :kill, @answer_ms)

  @doc "Asks it to end in good order, and waits for that."
  @spec stop(t()) :: :ok
  def stop(vm), do: GenServer.call(vm, :stop, @answer_ms)

  @doc "Stops it as a whole for a while; goes on by itself, also without us."
  @spec freeze(t(), pos_integer()) :: :ok
  def freeze(vm, ms), do: GenServer.call(vm, {:freeze, ms})

  defp tell(vm, line), do: GenServer.call(vm, {:tell, line})

  # --- the process

  @impl true
  def init(options) do
    Process.flag(:trap_exit, true)
    File.write!(options[:file], :erlang.term_to_binary(options[:config]))
    flags = if options[:flags], do: ["--erl", options[:flags]], else: []
    start = ["-e", "#{inspect(Node)}.main()"]

    environment =
      [{"WEBHOOKS_CRASH_CONFIG", options[:file]}, {"ERL_CRASH_DUMP_BYTES", "0"}] ++
        Keyword.get(options, :environment, [])

    # The shell that `elixir` is becomes the VM: one process, one number.
    port =
      Port.open({:spawn_executable, System.find_executable("elixir")}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        line: 65_536,
        env: for({key, value} <- environment, do: {to_charlist(key), to_charlist(value)}),
        args: flags ++ paths() ++ start
      ])

    {:os_pid, os_pid} = Port.info(port, :os_pid)

    {:ok,
     %{
       port: port,
       os_pid: os_pid,
       told: options[:told],
       state: :starting,
       owners: [],
       said: [],
       waiting: []
     }}
  end

  defp paths, do: Enum.flat_map(:code.get_path(), &["-pa", to_string(&1)])

  @impl true
  def handle_call(:ready, from, state) do
    case state.state do
      :starting -> {:noreply, %{state | waiting: [{:ready, from} | state.waiting]}}
      :ready -> {:reply, :ok, state}
      :gone -> {:reply, {:error, last_words(state)}, state}
    end
  end

  def handle_call({:ask, _line}, _from, %{state: :gone} = state),
    do: {:stop, {:gone, last_words(state)}, state}

  def handle_call({:ask, line}, from, state) do
    Port.command(state.port, line <> "\n")
    {:noreply, %{state | waiting: state.waiting ++ [{String.to_atom(line), from}]}}
  end

  def handle_call({:tell, line}, _from, state) do
    if state.state != :gone, do: Port.command(state.port, line <> "\n")
    {:reply, :ok, state}
  end

  def handle_call(:owners, _from, state), do: {:reply, state.owners, state}

  def handle_call(how, from, state) when how in [:kill, :stop] do
    cond do
      state.state == :gone -> {:reply, :ok, state}
      how == :kill -> {:noreply, signal(state, "-KILL", from)}
      how == :stop -> {:noreply, signal(state, "-TERM", from)}
    end
  end

  def handle_call({:freeze, ms}, _from, state) do
    script = "kill -STOP $0; sleep $1; kill -CONT $0"

    spawn(fn ->
      System.cmd("sh", ["-c", script, "#{state.os_pid}", "#{ms / 1_000}"], stderr_to_stdout: true)
    end)

    {:reply, :ok, state}
  end

  defp signal(state, signal, from) do
    System.cmd("kill", [signal, "#{state.os_pid}"], stderr_to_stdout: true)
    %{state | waiting: [{:gone, from} | state.waiting]}
  end

  @impl true
  def handle_info({port, {:data, {:eol, line}}}, %{port: port} = state),
    do: {:noreply, said(line, state)}

  def handle_info({port, {:data, {:noeol, _part}}}, %{port: port} = state), do: {:noreply, state}

  def handle_info({port, {:exit_status, _status}}, %{port: port} = state) do
    state = answer(%{state | state: :gone}, :gone, :ok)
    state = answer(state, :ready, {:error, last_words(state)})

    # Who asks something of it did not expect its end.
    if state.waiting == [],
      do: {:noreply, state},
      else: {:stop, {:gone, last_words(state)}, state}
  end

  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, %{state: :gone}), do: :ok

  def terminate(_reason, state),
    do: System.cmd("kill", ["-KILL", "#{state.os_pid}"], stderr_to_stdout: true)

  # --- what it says

  defp said("A " <> accepted, state) do
    now_ms = System.monotonic_time(:millisecond)

    rows =
      for pair <- String.split(accepted, ",") do
        [n, id] = String.split(pair, "=")
        {n, id, now_ms}
      end

    :ets.insert(state.told, [{{:last, self()}, nil, now_ms} | rows])
    state
  end

  defp said("READY", state), do: answer(%{state | state: :ready}, :ready, :ok)
  defp said("O " <> owner, state), do: %{state | owners: [owner | state.owners]}
  defp said("IDLE " <> events, state), do: answer(state, :idle, String.to_integer(events))

  defp said("S " <> stats, state),
    do: answer(state, :stats, stats |> Base.decode64!() |> :erlang.binary_to_term())

  # Its log, or why it could not start.
  defp said(line, state), do: %{state | said: Enum.take([line | state.said], 20)}

  defp last_words(state), do: state.said |> Enum.reverse() |> Enum.join("\n")

  defp answer(state, what, value) do
    {asked, waiting} = Enum.split_with(state.waiting, &(elem(&1, 0) == what))
    for {_what, from} <- asked, do: GenServer.reply(from, value)
    %{state | waiting: waiting}
  end
end
