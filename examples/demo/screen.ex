defmodule Demo.Screen do
  @moduledoc """
  Prints the demo's output: colours and a progress line on a terminal, plain lines
  elsewhere. One process writes all lines, so that they do not mix.
  """

  use GenServer

  def start_link(_argument), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  # Each call returns once the line is written. When nobody reads any more (`| head`), the
  # demo ends without a word, as other commands do.
  defp write(text) do
    IO.write(text)
  rescue
    _closed in ErlangError -> System.halt(0)
  end

  @doc "Prints a line: a time or `\"\"`, a label, a text."
  def line(time, label, colour, text),
    do: GenServer.call(__MODULE__, {:line, time, label, colour, text})

  def plain(text), do: GenServer.call(__MODULE__, {:plain, text})

  @doc "Prints a line that the next one replaces. Not on a terminal: one line in two seconds."
  def progress(text), do: GenServer.call(__MODULE__, {:progress, text})

  @impl true
  def init(nil) do
    {:ok, %{terminal: match?({:ok, _}, :io.columns()), progress: false, told_ms: 0}}
  end

  @impl true
  def handle_call({:line, time, label, colour, text}, _from, state) do
    label = String.pad_trailing(label, 8)
    label = if state.terminal, do: IO.ANSI.format([colour, label], true), else: label
    write([clear(state), String.pad_trailing(time, 9), label, " ", text, "\n"])
    {:reply, :ok, %{state | progress: false}}
  end

  def handle_call({:plain, text}, _from, state) do
    write([clear(state), text, "\n"])
    {:reply, :ok, %{state | progress: false}}
  end

  def handle_call({:progress, text}, _from, %{terminal: true} = state) do
    write([clear(%{state | progress: true}), IO.ANSI.format([:faint, text], true)])
    {:reply, :ok, %{state | progress: true}}
  end

  def handle_call({:progress, text}, _from, state) do
    now_ms = System.monotonic_time(:millisecond)

    if state.told_ms == 0 or now_ms - state.told_ms >= 2_000 do
      write(["... ", text, "\n"])
      {:reply, :ok, %{state | told_ms: now_ms}}
    else
      {:reply, :ok, state}
    end
  end

  defp clear(%{terminal: true, progress: true}), do: "\r\e[K"
  defp clear(_state), do: ""
end
