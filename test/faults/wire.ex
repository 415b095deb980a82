defmodule Plausible.Webhooks.Faults.Wire do
  @moduledoc false
  # Plays a script on one connection. A script is a list of:
  #
  #   :head                 reads a request up to its empty line
  #   :request              reads a whole request, and counts it
  #   {:request, check}     the same; `check` gets the head and says what to do next
  #   {:send, bytes}
  #   {:drip, bytes, ms}    a byte at a time
  #   {:endless, bytes}     until the peer is gone, or has taken 256 MiB
  #   {:endless, bytes, ms} with a pause
  #   {:wait, ms}
  #   :gone                 waits until the peer closes
  #   :shutdown             closes the sending half
  #   :close, :reset
  #   {:priority, level}    of this connection's process among those of its VM
  #   :again                from the start
  #
  # At its end the connection is closed. Counts: requests, bytes sent, connections, scripts
  # that came to their end.

  alias __MODULE__

  @endless_max 268_435_456
  @patience_ms 60_000

  defstruct [:transport, :socket, :raw, :counts, :script, buffer: ""]

  @counts [requests: 1, bytes: 2, connections: 3, ended: 4]

  def counts, do: :counters.new(length(@counts), [:write_concurrency])
  def count(counts, what), do: :counters.get(counts, @counts[what])
  def count_up(counts, what, by \\ 1), do: :counters.add(counts, @counts[what], by)

  @doc "`socket` is what `transport` reads and writes, `raw` the TCP socket below it."
  def play(transport, socket, raw, script, counts) do
    wire = %Wire{transport: transport, socket: socket, raw: raw, counts: counts, script: script}
    run(wire, script)
    count_up(counts, :ended)
  end

  @doc "Plays the script of the path that the request names, and so for each request."
  def dispatch(socket, scripts, counts) do
    wire = %Wire{
      transport: :gen_tcp,
      socket: socket,
      raw: socket,
      counts: counts,
      script: scripts
    }

    run(wire, [:again])
    count_up(counts, :ended)
  end

  @doc "Runs `fun` in a process that owns the socket."
  def hand_over(socket, fun) do
    pid =
      spawn(fn ->
        receive do: (:go -> :ok)
        fun.()
      end)

    _ = :gen_tcp.controlling_process(socket, pid)
    send(pid, :go)
  end

  defp run(wire, []), do: close(wire)

  defp run(%{script: scripts} = wire, [:again]) when is_map(scripts) do
    with {:ok, head, next} <- read_head(wire) do
      [_line, path] = Regex.run(~r"^\S+ /(\S*)", head)
      run(%{next | buffer: head <> "\r\n\r\n" <> next.buffer}, Map.fetch!(scripts, path))
    else
      :gone -> close(wire)
    end
  end

  defp run(wire, [:again]), do: run(wire, wire.script)

  defp run(wire, [act | rest]) do
    case act(act, wire) do
      %Wire{} = wire -> run(wire, rest)
      {:instead, script, wire} -> run(wire, script)
      :gone -> close(wire)
    end
  end

  defp act(:head, wire) do
    with {:ok, _head, wire} <- read_head(wire), do: wire
  end

  defp act(:request, wire), do: act({:request, fn _head -> :on end}, wire)

  defp act({:request, check}, wire) do
    with {:ok, head, wire} <- read_head(wire),
         %Wire{} = wire <- read_body(wire, length_of(head)) do
      count_up(wire.counts, :requests)
      if (script = check.(head)) == :on, do: wire, else: {:instead, script, wire}
    end
  end

  defp act({:send, bytes}, wire), do: write(wire, bytes)
  defp act({:drip, bytes, ms}, wire), do: drip(wire, bytes, ms)
  defp act({:endless, bytes}, wire), do: endless(wire, bytes, 0, 0)
  defp act({:endless, bytes, ms}, wire), do: endless(wire, bytes, ms, 0)

  defp act({:wait, ms}, wire) do
    Process.sleep(ms)
    wire
  end

  defp act(:gone, wire) do
    case read(wire) do
      {:ok, _more} -> act(:gone, wire)
      {:error, _reason} -> :gone
    end
  end

  defp act(:shutdown, wire) do
    :gen_tcp.shutdown(wire.raw, :write)
    wire
  end

  defp act(:close, wire), do: close(wire)

  defp act({:priority, level}, wire) do
    Process.flag(:priority, level)
    wire
  end

  defp act(:reset, wire) do
    :inet.setopts(wire.raw, linger: {true, 0})
    :gen_tcp.close(wire.raw)
    :gone
  end

  defp close(wire) do
    wire.transport.close(wire.socket)
    :gone
  end

  defp write(wire, bytes) do
    case wire.transport.send(wire.socket, bytes) do
      :ok ->
        count_up(wire.counts, :bytes, IO.iodata_length(bytes))
        wire

      {:error, _reason} ->
        :gone
    end
  end

  defp drip(wire, bytes, ms) do
    Enum.reduce_while(:binary.bin_to_list(bytes), wire, fn byte, wire ->
      Process.sleep(ms)
      wire = write(wire, <<byte>>)
      if wire == :gone, do: {:halt, :gone}, else: {:cont, wire}
    end)
  end

  defp endless(_wire, _bytes, _ms, sent) when sent > @endless_max, do: :gone

  defp endless(wire, bytes, ms, sent) do
    if ms > 0, do: Process.sleep(ms)

    with %Wire{} = wire <- write(wire, bytes),
         do: endless(wire, bytes, ms, sent + byte_size(bytes))
  end

  # --- requests

  defp read(wire), do: wire.transport.recv(wire.socket, 0, @patience_ms)

  defp read_head(wire) do
    case :binary.split(wire.buffer, "\r\n\r\n") do
      [head, rest] ->
        {:ok, head, %{wire | buffer: rest}}

      [buffer] ->
        case read(wire) do
          {:ok, more} -> read_head(%{wire | buffer: buffer <> more})
          {:error, _reason} -> :gone
        end
    end
  end

  defp read_body(%Wire{buffer: buffer} = wire, length) when byte_size(buffer) >= length,
    do: %{wire | buffer: binary_part(buffer, length, byte_size(buffer) - length)}

  defp read_body(wire, length) do
    case read(wire) do
      {:ok, more} -> read_body(%{wire | buffer: wire.buffer <> more}, length)
      {:error, _reason} -> :gone
    end
  end

  defp length_of(head) do
    case Regex.run(~r/^content-length: (\d+)\r?$/im, head) do
      [_line, length] -> String.to_integer(length)
      nil -> 0
    end
  end
end
