defmodule Plausible.Webhooks.Test.HttpReceiver do
  @moduledoc false
  # A real HTTP/1.1 receiver on a loopback address: keeps connections alive, answers
  # each path as told, remembers every request, and checks signatures with OTP's
  # crypto, which shares no code with what signs.
  #
  #     receiver = HttpReceiver.start!()
  #     HttpReceiver.script(receiver, "/flaky", [503, 503, 200])
  #     HttpReceiver.secrets(receiver, "/flaky", ["whsec_..."])
  #     url = HttpReceiver.url(receiver, "/flaky")
  #     [request] = HttpReceiver.await(receiver, "/flaky", 1)
  #     request.verified
  #
  # An answer is one of
  #   status                       with an empty body
  #   {status, headers, body}
  #   {:delay, ms, answer}
  #   {:drip, ms, answer}          one byte every ms
  #   :hang                        reads the request, never answers
  #   :close                       closes without an answer
  #   :reset                       resets the connection (RST)
  #   {:then_close, answer}        answers, then closes
  #   fun/1                        of the request, gives one of the above
  # A script's last answer stays. A path without a script answers 200.
  #
  # With `keep: false` it forgets each request, so that a million of them fit: the answer
  # of a fun/1 is what looks at them.

  use GenServer

  defstruct [:pid, :ip, :port, :table, keep: true]

  @type t :: %__MODULE__{}

  def start!(opts \\ []) do
    {:ok, pid} = GenServer.start_link(__MODULE__, opts)
    of(pid)
  end

  @doc "The receiver of a process that a test supervisor started."
  def of(pid), do: GenServer.call(pid, :receiver, 60_000)

  def start_link(opts), do: GenServer.start_link(__MODULE__, opts)

  def url(%__MODULE__{ip: ip, port: port}, path), do: "http://#{:inet.ntoa(ip)}:#{port}#{path}"

  def script(%__MODULE__{table: table}, path, answers) when is_list(answers) do
    :ets.insert(table, [{{:turn, path}, 0}, {{:script, path}, List.to_tuple(answers)}])
    :ok
  end

  @doc """
  An answer that the test gives: it gets `{:held, pid}` when the request has arrived, and
  answers it by `release/2`.
  """
  def hold(test) do
    fn _request ->
      send(test, {:held, self()})
      receive do: ({:answer, answer} -> answer)
    end
  end

  def release(pid, answer), do: send(pid, {:answer, answer})

  def secrets(%__MODULE__{table: table}, path, secrets) do
    :ets.insert(table, {{:secrets, path}, secrets})
    :ok
  end

  def secrets(%__MODULE__{table: table}, path) do
    case :ets.lookup(table, {:secrets, path}) do
      [{_key, secrets}] -> secrets
      [] -> []
    end
  end

  @doc "What arrived so far, in order; of one path or of all."
  def requests(%__MODULE__{table: table}, path \\ :_) do
    for [request] <-
          :ets.match(table, {{:request, :_}, path, :"$1"}) |> Enum.sort_by(&hd(&1).number),
        do: request
  end

  @doc "How many requests arrived, without copying them."
  def count(%__MODULE__{table: table}, path \\ :_),
    do: :ets.select_count(table, [{{{:request, :_}, path, :_}, [], [true]}])

  @doc "The distinct `webhook-id`s that arrived."
  def ids(receiver, path \\ :_),
    do: receiver |> requests(path) |> MapSet.new(& &1.headers["webhook-id"])

  @doc "Waits until at least `count` requests have arrived at the path."
  def await(receiver, path, count, timeout_ms \\ 15_000) do
    deadline = System.monotonic_time(:millisecond) + timeout_ms
    await_until(receiver, path, count, deadline)
  end

  defp await_until(receiver, path, count, deadline) do
    cond do
      count(receiver, path) >= count ->
        requests(receiver, path)

      System.monotonic_time(:millisecond) >= deadline ->
        raise "#{count(receiver, path)} of #{count} requests arrived at #{path}"

      true ->
        Process.sleep(5)
        await_until(receiver, path, count, deadline)
    end
  end

  @doc "How many connections were accepted."
  def connections(%__MODULE__{table: table}), do: :ets.lookup_element(table, :connections, 2)

  @doc "Stops listening: from now on connections are refused."
  def stop_listening(%__MODULE__{pid: pid}), do: GenServer.call(pid, :stop_listening, 60_000)

  @doc "Does this request carry a signature by one of the secrets?"
  def verify(request, secrets) do
    with id when is_binary(id) <- request.headers["webhook-id"],
         timestamp when is_binary(timestamp) <- request.headers["webhook-timestamp"],
         {seconds, ""} <- Integer.parse(timestamp),
         true <- abs(System.system_time(:second) - seconds) <= 300,
         signatures when is_binary(signatures) <- request.headers["webhook-signature"] do
      expected =
        for "whsec_" <> encoded <- secrets do
          mac =
            :crypto.mac(:hmac, :sha256, Base.decode64!(encoded), [
              id,
              ?.,
              timestamp,
              ?.,
              request.body
            ])

          "v1," <> Base.encode64(mac)
        end

      signatures |> String.split(" ") |> Enum.any?(&(&1 in expected))
    else
      _missing -> false
    end
  end

  # --- the process

  @impl true
  def init(opts) do
    ip = Keyword.get(opts, :ip, {127, 0, 0, 1})

    {:ok, listener} =
      :gen_tcp.listen(Keyword.get(opts, :port, 0), [
        :binary,
        ip: ip,
        active: false,
        reuseaddr: true,
        nodelay: true,
        backlog: 1_024
      ])

    {:ok, port} = :inet.port(listener)
    table = :ets.new(__MODULE__, [:public, :ordered_set, write_concurrency: true])
    :ets.insert(table, {:connections, 0})
    keep = Keyword.get(opts, :keep, true)
    receiver = %__MODULE__{pid: self(), ip: ip, port: port, table: table, keep: keep}
    for _ <- 1..2, do: spawn_link(fn -> accept(listener, receiver) end)
    {:ok, %{receiver: receiver, listener: listener}}
  end

  @impl true
  def handle_call(:receiver, _from, state), do: {:reply, state.receiver, state}

  def handle_call(:stop_listening, _from, state) do
    :gen_tcp.close(state.listener)
    {:reply, :ok, state}
  end

  defp accept(listener, receiver) do
    case :gen_tcp.accept(listener) do
      {:ok, socket} ->
        number = :ets.update_counter(receiver.table, :connections, 1)
        # Linked to the receiver: none outlives its test.
        pid = spawn(fn -> own(socket, receiver, number) end)
        :ok = :gen_tcp.controlling_process(socket, pid)
        send(pid, :go)
        accept(listener, receiver)

      {:error, :closed} ->
        :ok

      {:error, _reason} ->
        Process.sleep(10)
        accept(listener, receiver)
    end
  end

  defp own(socket, receiver, number) do
    Process.link(receiver.pid)

    receive do
      :go -> serve(socket, receiver, number, "")
    end
  catch
    # The receiver is gone already.
    :error, :noproc -> :ok
  end

  defp serve(socket, receiver, connection, buffer) do
    case read(socket, buffer) do
      {:ok, request, rest} ->
        request = remember(receiver, Map.put(request, :connection, connection))

        if answer(socket, next_answer(receiver, request), request) == :keep,
          do: serve(socket, receiver, connection, rest)

      _closed ->
        :gen_tcp.close(socket)
    end
  end

  # --- reading

  defp read(socket, buffer) do
    case :binary.split(buffer, "\r\n\r\n") do
      [head, rest] ->
        request = parse(head)
        length = String.to_integer(Map.get(request.headers, "content-length", "0"))

        with {:ok, body, rest} <- read_body(socket, rest, length) do
          {:ok, Map.put(request, :body, body), rest}
        end

      [_partial] ->
        with {:ok, more} <- :gen_tcp.recv(socket, 0, 60_000), do: read(socket, buffer <> more)
    end
  end

  defp read_body(_socket, buffer, length) when byte_size(buffer) >= length do
    <<body::binary-size(length), rest::binary>> = buffer
    {:ok, body, rest}
  end

  defp read_body(socket, buffer, length) do
    with {:ok, more} <- :gen_tcp.recv(socket, 0, 60_000),
         do: read_body(socket, buffer <> more, length)
  end

  defp parse(head) do
    [line | lines] = String.split(head, "\r\n")
    [method, target, _version] = String.split(line, " ", parts: 3)
    [path | _query] = String.split(target, "?", parts: 2)

    headers =
      Map.new(lines, fn line ->
        [name, value] = String.split(line, ":", parts: 2)
        {String.downcase(name), String.trim(value)}
      end)

    %{method: method, target: target, path: path, headers: headers}
  end

  defp remember(%{keep: false}, request), do: request

  defp remember(%{table: table}, request) do
    verified =
      case :ets.lookup(table, {:secrets, request.path}) do
        [{_key, secrets}] -> verify(request, secrets)
        [] -> nil
      end

    request =
      Map.merge(request, %{
        verified: verified,
        at_ms: System.system_time(:millisecond),
        number: :erlang.unique_integer([:monotonic])
      })

    :ets.insert(table, {{:request, request.number}, request.path, request})
    request
  end

  # --- answering

  # The counter gives no answer to two requests.
  defp next_answer(%{table: table}, %{path: path} = request) do
    answer =
      case :ets.lookup(table, {:script, path}) do
        [{_key, answers}] ->
          turn = :ets.update_counter(table, {:turn, path}, 1)
          elem(answers, min(turn, tuple_size(answers)) - 1)

        [] ->
          200
      end

    if is_function(answer, 1), do: answer.(request), else: answer
  end

  defp answer(socket, {:delay, ms, answer}, request) do
    Process.sleep(ms)
    answer(socket, answer, request)
  end

  defp answer(socket, {:then_close, answer}, request) do
    answer(socket, answer, request)
    :gen_tcp.close(socket)
    :closed
  end

  defp answer(socket, :hang, _request) do
    # Until the sender gives up.
    _ = :gen_tcp.recv(socket, 0, 60_000)
    :gen_tcp.close(socket)
    :closed
  end

  defp answer(socket, :close, _request) do
    :gen_tcp.close(socket)
    :closed
  end

  defp answer(socket, :reset, _request) do
    :inet.setopts(socket, linger: {true, 0})
    :gen_tcp.close(socket)
    :closed
  end

  defp answer(socket, {:drip, ms, answer}, _request) do
    for <<byte <- response(answer)>>, reduce: :ok do
      :ok ->
        Process.sleep(ms)
        :gen_tcp.send(socket, <<byte>>)

      error ->
        error
    end
    |> kept()
  end

  defp answer(socket, answer, _request), do: socket |> :gen_tcp.send(response(answer)) |> kept()

  defp kept(:ok), do: :keep
  defp kept({:error, _reason}), do: :closed

  defp response(status) when is_integer(status), do: response({status, [], ""})

  defp response({status, headers, body}) do
    lines = for {name, value} <- headers, do: "#{name}: #{value}\r\n"

    IO.iodata_to_binary([
      "HTTP/1.1 #{status} Answer\r\n",
      "content-length: #{byte_size(body)}\r\n",
      lines,
      "\r\n",
      body
    ])
  end
end
