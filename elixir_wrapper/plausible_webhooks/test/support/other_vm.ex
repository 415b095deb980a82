defmodule Plausible.Webhooks.Test.OtherVm do
  @moduledoc false
  # A VM beside this one, with this one's code. It ends with the process that started it.
  #
  #     vm = OtherVm.start!(nice: 19)
  #     urls = OtherVm.serve(vm, MyPeers, :start, [])

  defstruct [:peer, :os_pid]

  @call_ms 60_000

  @doc "With `nice`, it has this much less weight than this VM."
  def start!(options \\ []) do
    nice = Keyword.get(options, :nice, 0)
    command = [System.find_executable("nice"), "-n", "#{nice}", System.find_executable("erl")]
    [exec | arguments] = Enum.map(command, &to_charlist/1)
    # Its schedulers must not wait busily for work on the cores of those that are measured.
    quiet = for flag <- ~w(+sbwt +sbwtdcpu +sbwtdio), word <- [flag, "none"], do: word
    paths = Enum.flat_map(:code.get_path(), &["-pa", to_string(&1)])

    {:ok, peer, _node} =
      :peer.start_link(%{
        connection: :standard_io,
        wait_boot: @call_ms,
        exec: {exec, arguments},
        args: Enum.map(quiet ++ paths, &to_charlist/1)
      })

    vm = %__MODULE__{peer: peer}

    for application <- [:elixir, :logger, :ssl],
        do: {:ok, _} = call(vm, Application, :ensure_all_started, [application])

    :ok = call(vm, Logger, :configure, [[level: :error]])
    %{vm | os_pid: call(vm, System, :pid, [])}
  end

  def call(vm, module, function, arguments),
    do: :peer.call(vm.peer, module, function, arguments, @call_ms)

  @doc "The same in a process that stays, for a function that starts what is linked to it."
  def serve(vm, module, function, arguments),
    do: call(vm, __MODULE__, :stay, [module, function, arguments])

  def stay(module, function, arguments) do
    caller = self()

    {pid, ref} =
      spawn_monitor(fn ->
        send(caller, {self(), apply(module, function, arguments)})
        Process.sleep(:infinity)
      end)

    receive do
      {^pid, result} -> Process.demonitor(ref, [:flush]) && result
      {:DOWN, ^ref, :process, ^pid, reason} -> exit(reason)
    end
  end

  @doc "`kill -9`; returns when the process is gone."
  def kill(vm) do
    ref = Process.monitor(vm.peer)
    Process.unlink(vm.peer)
    System.cmd("kill", ["-9", vm.os_pid], stderr_to_stdout: true)
    receive do: ({:DOWN, ^ref, :process, _peer, _reason} -> :ok)
  end
end
