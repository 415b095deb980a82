defmodule Plausible.Webhooks.Faults.Meter do
  @moduledoc false
  # Times each call of run_once by the clock, and by the processor time of the dirty I/O
  # scheduler that ran it: on a loaded machine the clock says little.

  alias Plausible.Webhooks.Native

  @doc "`{attempts, milliseconds beyond what was asked, meter}`."
  def run_once(meter, engine, asked_ms) do
    begin = System.monotonic_time(:microsecond)
    {:ok, attempts} = Native.run_once(engine, asked_ms)
    ms = (System.monotonic_time(:microsecond) - begin) / 1_000
    now = read(meter.threads)
    busy_ms = Enum.zip_with(now, meter.read, &((&1 - &2) / 1_000_000)) |> Enum.max(fn -> ms end)
    {attempts, min(max(ms - asked_ms, 0.0), busy_ms), %{meter | read: now}}
  end

  def new do
    threads =
      for task <- Path.wildcard("/proc/self/task/*"),
          File.read(task <> "/comm") |> dirty_io?(),
          do: task <> "/schedstat"

    %{threads: threads, read: read(threads)}
  end

  defp dirty_io?({:ok, name}), do: name =~ "dios" or name =~ "dirty_io"
  defp dirty_io?(_gone), do: false

  defp read(threads) do
    for path <- threads do
      with {:ok, text} <- File.read(path),
           {ns, _rest} <- Integer.parse(text) do
        ns
      else
        _none -> 0
      end
    end
  end

  @doc "How much more time and memory a sanitizer takes."
  def slack, do: if((System.get_env("LD_PRELOAD") || "") =~ "asan", do: 8, else: 1)

  @doc "What the process holds, in bytes."
  def memory do
    [_size, resident | _rest] = File.read!("/proc/self/statm") |> String.split()
    String.to_integer(resident) * 4_096
  end
end
