defmodule Plausible.Webhooks.Test.Crash.Proxy do
  @moduledoc false
  # Between a node and PostgreSQL: a TCP port in front of the server's socket, which
  # breaks connections at random places.
  #
  # Each connection gets a number of bytes after which it breaks, in one of these
  # ways; what is in the middle of a message breaks there.
  #
  #   :up      cut when so much was sent: a statement that never arrives whole
  #   :down    cut when so much came back: the answer to a commit gets lost
  #   :late    nothing comes through any more; what was sent arrives seconds later,
  #            when its sender has long given up, and is carried out then
  #   :stall   nothing comes through any more, for seconds; then it is cut

  use GenServer

  defstruct [:pid, :port]

  @type t :: %__MODULE__{}
  @type mode :: :pass | :break | :refuse

  @connect_ms 5_000

  def start_link(options), do: GenServer.start_link(__MODULE__, options)
  def of(pid), do: GenServer.call(pid, :proxy, 60_000)

  @doc """
  `:pass`: everything; `:break`: connections break, those that are there too;
  `:refuse`: all are cut now, and no new ones.
  """
  @spec set(t(), mode()) :: :ok
  def set(proxy, mode), do: GenServer.call(proxy.pid, {:set, mode})

  @doc "Options of a Repo that goes through it, and connects again soon."
  @spec connect(t()) :: keyword()
  def connect(proxy) do
    [
      hostname: "127.0.0.1",
      port: proxy.port,
      database: "webhooks",
      username: "postgres",
      backoff_min: 20,
      backoff_max: 200
    ]
  end

  @doc "How many connections were broken."
  @spec broken(t()) :: non_neg_integer()
  def broken(proxy), do: GenServer.call(proxy.pid, :broken)

  # --- the process

  # Options: `:socket`, the server's; `:bytes_max`, where to break at the latest, and
  # rather early; `:hold_ms`, a range of how long `:late` and `:stall` are.
  @impl true
  def init(options) do
    {:ok, listener} =
      :gen_tcp.listen(0, [:binary, ip: {127, 0, 0, 1}, active: false, nodelay: true, backlog: 128])

    {:ok, port} = :inet.port(listener)
    proxy = %__MODULE__{pid: self(), port: port}
    spawn_link(fn -> accept(listener, Map.new(options), proxy) end)
    {:ok, %{proxy: proxy, mode: :pass, broken: 0, relays: %{}}}
  end

  @impl true
  def handle_call(:proxy, _from, state), do: {:reply, state.proxy, state}
  def handle_call(:broken, _from, state), do: {:reply, state.broken, state}

  def handle_call({:set, mode}, _from, state) do
    for {_ref, relay} <- state.relays, do: send(relay, {:mode, mode})
    {:reply, :ok, %{state | mode: mode}}
  end

  def handle_call({:relay, pid}, _from, state) do
    {:reply, state.mode, put_in(state.relays[Process.monitor(pid)], pid)}
  end

  @impl true
  def handle_info({:DOWN, ref, :process, _pid, reason}, state) do
    broken = if reason == :broken, do: state.broken + 1, else: state.broken
    {:noreply, %{state | broken: broken, relays: Map.delete(state.relays, ref)}}
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp accept(listener, options, proxy) do
    case :gen_tcp.accept(listener) do
      {:ok, client} ->
        relay = spawn(fn -> await(client, options, proxy) end)
        :ok = :gen_tcp.controlling_process(client, relay)
        send(relay, :go)
        accept(listener, options, proxy)

      {:error, _closed} ->
        :ok
    end
  end

  # --- one connection

  defp await(client, options, proxy) do
    receive do: (:go -> :ok)
    guard = Process.monitor(proxy.pid)

    with mode when mode != :refuse <- GenServer.call(proxy.pid, {:relay, self()}),
         {:ok, server} <- to_server(options.socket) do
      relay = %{client: client, server: server, guard: guard, options: options, fate: nil}
      :inet.setopts(client, active: :once)
      :inet.setopts(server, active: :once)
      relay(doom(relay, mode))
    end
  end

  defp to_server(socket),
    do: :gen_tcp.connect({:local, socket}, 0, [:binary, active: false], @connect_ms)

  defp doom(relay, :break) do
    how = Enum.random([:up, :down, :down, :late, :stall])
    bytes = trunc(:math.pow(relay.options.bytes_max, :rand.uniform()))
    %{relay | fate: {how, bytes}}
  end

  defp doom(relay, _pass), do: %{relay | fate: nil}

  defp relay(%{client: client, server: server, guard: guard} = relay) do
    receive do
      {:tcp, ^client, data} -> pass(relay, :up, server, client, data)
      {:tcp, ^server, data} -> pass(relay, :down, client, server, data)
      {closed, _socket} when closed in [:tcp_closed] -> :ok
      {:tcp_error, _socket, _reason} -> :ok
      {:mode, :refuse} -> exit(:broken)
      {:mode, mode} -> relay(doom(relay, mode))
      {:DOWN, ^guard, :process, _pid, _reason} -> :ok
    end
  end

  # :late and :stall count what is sent.
  defp pass(relay, direction, to, from, data) do
    case relay.fate do
      {how, left} when how == :down == (direction == :down) and byte_size(data) >= left ->
        break(how, relay, binary_part(data, 0, left), data)

      {how, left} when how == :down == (direction == :down) ->
        go_on(%{relay | fate: {how, left - byte_size(data)}}, to, from, data)

      _no_fate_or_other_direction ->
        go_on(relay, to, from, data)
    end
  end

  defp go_on(relay, to, from, data) do
    with :ok <- :gen_tcp.send(to, data),
         :ok <- :inet.setopts(from, active: :once),
         do: relay(relay)
  end

  defp break(:up, relay, part, _data) do
    _ = :gen_tcp.send(relay.server, part)
    exit(:broken)
  end

  defp break(:down, relay, part, _data) do
    _ = :gen_tcp.send(relay.client, part)
    exit(:broken)
  end

  defp break(:late, relay, _part, data) do
    hold(relay)
    _ = :gen_tcp.send(relay.server, data)
    # The server has it; it may take its time.
    Process.sleep(200)
    exit(:broken)
  end

  defp break(:stall, relay, _part, _data) do
    hold(relay)
    exit(:broken)
  end

  defp hold(%{guard: guard, options: options}) do
    receive do
      {:DOWN, ^guard, :process, _pid, _reason} -> exit(:normal)
    after
      Enum.random(options.hold_ms) -> :ok
    end
  end
end
