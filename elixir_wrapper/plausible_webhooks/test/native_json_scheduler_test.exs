defmodule Plausible.Webhooks.NativeJsonSchedulerTest do
  # No term and no document holds a normal scheduler for a millisecond. The VM
  # traces when the calling process goes in and out, and where; dirty schedulers
  # have the number 0. The smallest of several runs counts: on a busy machine
  # the operating system interrupts some of them.
  use ExUnit.Case, async: false

  alias Plausible.Webhooks.Native

  if System.get_env("ASAN_OPTIONS") do
    @moduletag skip: "a sanitizer makes everything several times slower"
  end

  @runs 12
  @limit_us 1000
  @mib 1024 * 1024

  defp held_us(fun) do
    parent = self()
    pid = spawn_link(fn -> serve(fun, parent) end)
    :erlang.trace(pid, true, [:running, :monotonic_timestamp, :scheduler_id])

    holds =
      for _ <- 1..@runs do
        send(pid, :run)
        assert_receive :ran, 60_000
        :erlang.trace_delivered(pid)
        assert_receive {:trace_delivered, ^pid, _}
        pid |> events([]) |> longest()
      end

    :erlang.trace(pid, false, [:running])
    Process.unlink(pid)
    Process.exit(pid, :kill)
    Enum.min(holds)
  end

  defp serve(fun, parent) do
    receive do: (:run -> :ok)
    fun.()
    send(parent, :ran)
    serve(fun, parent)
  end

  defp events(pid, found) do
    receive do
      {:trace_ts, ^pid, io, _, scheduler, at} -> events(pid, [{io, scheduler, at} | found])
    after
      0 -> Enum.reverse(found)
    end
  end

  # On normal schedulers, in microseconds.
  defp longest(events) do
    [events, tl(events)]
    |> Enum.zip()
    |> Enum.map(fn
      {{:in, scheduler, from}, {:out, scheduler, to}} when scheduler > 0 ->
        System.convert_time_unit(to - from, :native, :microsecond)

      _ ->
        0
    end)
    |> Enum.max()
  end

  defp deep(wrap, depth), do: Enum.reduce(1..depth, 1, fn _, term -> wrap.(term) end)
  defp many(term, count \\ 100_000), do: List.duplicate(term, count)

  defp terms do
    [
      integers: Enum.to_list(1..200_000),
      floats: many(1.2345678901234567e-300),
      "empty maps": many(%{}),
      maps: many(%{a: 1}),
      "short strings": many("é"),
      "control characters": many(:binary.copy(<<1>>, 10_000), 100),
      "control characters below the limit": :binary.copy(<<1>>, 32_000),
      atoms: many(:atom),
      "longest atoms": many(String.to_atom(String.duplicate("a", 255)), 10_000),
      "the biggest integer": Integer.pow(2, 4_000_000),
      "a large map": Map.new(1..100_000, &{"k#{&1}", &1}),
      "a large map of mixed keys": Map.new(1..100_000, &{"k#{&1}", 1}) |> Map.put(:a, 1),
      "100 MB": :binary.copy("a", 100_000_000),
      "7 MB": :binary.copy("a", 7_000_000),
      "7 MB, then no UTF-8": :binary.copy("a", 7_000_000) <> "\xff",
      "a million lists deep": deep(&[&1], 1_000_000),
      "a million maps deep": deep(&%{a: &1}, 1_000_000),
      "improper at the end": many(1) ++ :end,
      "no form at the end": many(1) ++ [self()]
    ]
  end

  defp documents do
    [
      "8 MB": "[" <> String.duplicate("1,", 4 * @mib - 2) <> "1]",
      "8 MB of equal keys": "{" <> String.duplicate(~S("":1,), 1_600_000) <> ~S("":1}),
      "100 MB": :binary.copy(" ", 100_000_000),
      "numbers below the limit": "[" <> String.duplicate("1,", 4090) <> "1]",
      "maps below the limit": "[" <> String.duplicate("{},", 2700) <> "1]",
      "equal keys below the limit": "{" <> String.duplicate(~S("":1,), 1600) <> ~S("":1})
    ]
  end

  @tag timeout: 300_000
  test "encode/1" do
    for {name, term} <- terms() do
      held = held_us(fn -> Native.encode(term) end)
      assert held < @limit_us, "#{name}: #{held} us"
    end
  end

  @tag timeout: 300_000
  test "decode/1" do
    for {name, json} <- documents() do
      held = held_us(fn -> Native.decode(json) end)
      assert held < @limit_us, "#{name}: #{held} us"
    end
  end

  test "the measurement detects a blocked scheduler" do
    busy = fn -> Enum.reduce(1..100_000, 0, &(&1 + &2)) end
    assert held_us(busy) > 0
    huge = many(1, 200_000)
    # Done by a dirty scheduler, so that the normal one is free for longer than
    # the whole call takes.
    {whole, {:ok, _}} = :timer.tc(fn -> Native.encode(huge) end)
    assert held_us(fn -> Native.encode(huge) end) < whole
  end

  test "a caller in a loop gives way to others" do
    {:reductions, before} = Process.info(self(), :reductions)
    for _ <- 1..1000, do: {:ok, _} = Native.encode(%{"a" => 1})
    for _ <- 1..1000, do: {:ok, _} = Native.decode(~S({"a":1}))
    {:reductions, later} = Process.info(self(), :reductions)
    # A percent of a timeslice each, 40 reductions, whatever is left of it when
    # the process goes out.
    assert later - before > 20 * 2000
  end
end
