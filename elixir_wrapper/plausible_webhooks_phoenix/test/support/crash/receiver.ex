defmodule Plausible.Webhooks.Test.Crash.Receiver do
  @moduledoc false
  # Where the deliveries go: a real HTTP/1.1 server on a loopback address that keeps
  # connections alive and accounts for every request without keeping it, so that a
  # million of them fit.
  #
  # What is on the path `/hook` is answered with 200, now and then late or with 503;
  # `/bad` always with 503. Bodies carry what they are about as `"n":"..."`.
  #
  #   {{:id, webhook_id_header}, hash of the body, requests, answers of 2xx,
  #    when the first request came, and the last}
  #   {{:event, path, n}, webhook_id_header}
  #   {:conflict, text}  what must not be: see conflicts/1
  #   {:requests, count}  {:unverified, count}

  use GenServer

  defstruct [:pid, :url, :table]

  @type t :: %__MODULE__{}

  @accepting 4
  @idle_ms 60_000

  # One in so many is answered late, or with 503.
  @late_one_in 25
  @failed_one_in 25
  @late_ms 30..250

  def start_link(secret), do: GenServer.start_link(__MODULE__, secret)
  def of(pid), do: GenServer.call(pid, :receiver, 60_000)

  @spec requests(t()) :: non_neg_integer()
  def requests(receiver), do: :ets.lookup_element(receiver.table, :requests, 2)

  @doc "Did a request of that id arrive and get a 2xx?"
  @spec answered?(t(), String.t()) :: boolean()
  def answered?(receiver, id) do
    case :ets.lookup(receiver.table, {:id, id}) do
      [{_key, _hash, _requests, answers, _first, _last}] -> answers > 0
      [] -> false
    end
  end

  @doc "From the first request of an id to the last."
  @spec took_ms(t(), String.t()) :: non_neg_integer() | nil
  def took_ms(receiver, id) do
    case :ets.lookup(receiver.table, {:id, id}) do
      [{_key, _hash, _requests, _answers, first, last}] -> last - first
      [] -> nil
    end
  end

  @doc "How many answers of 2xx there were beyond the first of an id."
  @spec duplicates(t()) :: non_neg_integer()
  def duplicates(receiver) do
    more = [{{{:id, :_}, :_, :_, :"$1", :_, :_}, [{:>, :"$1", 1}], [{:-, :"$1", 1}]}]
    receiver.table |> :ets.select(more) |> Enum.sum()
  end

  @doc "What must not be: an id with two bodies, an event with two ids, no signature."
  @spec conflicts(t()) :: [String.t()]
  def conflicts(receiver) do
    unverified = :ets.lookup_element(receiver.table, :unverified, 2)
    conflicts = Enum.map(:ets.match(receiver.table, {{:conflict, :"$1"}}), &hd/1)

    if unverified > 0,
      do: ["#{unverified} requests without a signature" | conflicts],
      else: conflicts
  end

  # --- the process

  @impl true
  def init("whsec_" <> secret) do
    {:ok, listener} =
      :gen_tcp.listen(0, [
        :binary,
        ip: {127, 0, 0, 1},
        active: false,
        reuseaddr: true,
        nodelay: true,
        backlog: 1_024
      ])

    {:ok, port} = :inet.port(listener)
    table = :ets.new(__MODULE__, [:public, :set, write_concurrency: true])
    :ets.insert(table, [{:requests, 0}, {:unverified, 0}])
    receiver = %__MODULE__{pid: self(), url: "http://127.0.0.1:#{port}", table: table}
    state = %{receiver: receiver, listener: listener, key: Base.decode64!(secret)}
    for _ <- 1..@accepting, do: spawn_link(fn -> accept(state) end)
    {:ok, state}
  end

  @impl true
  def handle_call(:receiver, _from, state), do: {:reply, state.receiver, state}

  defp accept(state) do
    case :gen_tcp.accept(state.listener) do
      {:ok, socket} ->
        # Its connection is this process's; the next one is somebody else's.
        spawn_link(fn -> accept(state) end)
        serve(socket, state, "")

      {:error, _closed_or_worse} ->
        :ok
    end
  end

  defp serve(socket, state, buffer) do
    case read(socket, buffer) do
      {:ok, head, body, rest} ->
        case :gen_tcp.send(socket, answer(state, head, body)) do
          :ok -> serve(socket, state, rest)
          {:error, _reason} -> :gen_tcp.close(socket)
        end

      {:error, _reason} ->
        :gen_tcp.close(socket)
    end
  end

  defp read(socket, buffer) do
    case :binary.split(buffer, "\r\n\r\n") do
      [head, rest] ->
        head = parse(head)
        read_body(socket, head, rest, String.to_integer(head["content-length"]))

      [_partial] ->
        with {:ok, more} <- :gen_tcp.recv(socket, 0, @idle_ms), do: read(socket, buffer <> more)
    end
  end

  defp read_body(_socket, head, buffer, length) when byte_size(buffer) >= length do
    <<body::binary-size(length), rest::binary>> = buffer
    {:ok, head, body, rest}
  end

  defp read_body(socket, head, buffer, length) do
    with {:ok, more} <- :gen_tcp.recv(socket, 0, @idle_ms),
         do: read_body(socket, head, buffer <> more, length)
  end

  defp parse(head) do
    [line | lines] = :binary.split(head, "\r\n", [:global])
    ["POST", path, _version] = :binary.split(line, " ", [:global])

    for line <- lines, into: %{path: path} do
      [name, value] = :binary.split(line, ": ")
      {String.downcase(name), value}
    end
  end

  # --- accounting

  defp answer(state, %{"webhook-id" => id, path: path} = head, body) do
    %{table: table} = state.receiver
    :ets.update_counter(table, :requests, 1)
    unless verified?(state, head, body), do: :ets.update_counter(table, :unverified, 1)
    hash = :erlang.md5(body)
    now_ms = System.monotonic_time(:millisecond)

    unless :ets.insert_new(table, {{:id, id}, hash, 1, 0, now_ms, now_ms}) do
      :ets.update_counter(table, {:id, id}, {3, 1})
      :ets.update_element(table, {:id, id}, {6, now_ms})

      if :ets.lookup_element(table, {:id, id}, 2) != hash,
        do: conflict(table, "#{id}: two bodies")
    end

    event = {:event, path, number(body)}

    unless :ets.insert_new(table, {event, id}) do
      other = :ets.lookup_element(table, event, 2)
      if other != id, do: conflict(table, "#{inspect(event)}: #{id} and #{other}")
    end

    status = status(path)
    if status == 200, do: :ets.update_counter(table, {:id, id}, {4, 1})
    "HTTP/1.1 #{status} Answer\r\ncontent-length: 0\r\n\r\n"
  end

  defp conflict(table, text), do: :ets.insert(table, {{:conflict, text}})

  defp status("/bad"), do: 503

  defp status("/hook") do
    if :rand.uniform(@late_one_in) == 1, do: Process.sleep(Enum.random(@late_ms))
    if :rand.uniform(@failed_one_in) == 1, do: 503, else: 200
  end

  # Without a look at the time: some senders' clocks are wrong on purpose.
  defp verified?(%{key: key}, %{"webhook-id" => id, "webhook-timestamp" => at} = head, body) do
    mac = :crypto.mac(:hmac, :sha256, key, [id, ?., at, ?., body])
    head["webhook-signature"] == "v1," <> Base.encode64(mac)
  end

  defp verified?(_state, _head, _body), do: false

  @doc "What a body is about."
  @spec number(binary()) :: String.t()
  def number(body) do
    [_before, rest] = :binary.split(body, ~s("n":"))
    [number, _after] = :binary.split(rest, ~s("))
    number
  end
end
