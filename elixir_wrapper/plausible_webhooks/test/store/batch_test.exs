defmodule Plausible.Webhooks.Store.BatchTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Store.Batch

  doctest Batch

  defp refusing(bad),
    do: fn rows -> if Enum.any?(rows, &(&1 in bad)), do: {:error, :no}, else: :ok end

  test "finds every refused row, and writes all others" do
    for bad <- [[1], [50], [100], [1, 100], [7, 8, 9], Enum.to_list(2..40)] do
      # A probe of two rows may hit two bad ones; the next round draws again.
      {:ok, written, refused} =
        Enum.find_value(1..200, fn _round ->
          with {:error, :no} <- Batch.write(Enum.to_list(1..100), refusing(bad), true), do: nil
        end)

      assert Enum.sort(Enum.map(refused, &elem(&1, 0))) == bad
      assert Enum.sort(written) == Enum.to_list(1..100) -- bad
    end
  end

  test "a store that is away is asked three times, not for every row" do
    test = self()

    away = fn rows ->
      send(test, {:asked, length(rows)})
      {:error, :away}
    end

    assert {:error, :away} = Batch.write(Enum.to_list(1..500), away, true)
    assert_received {:asked, 500}
    assert_received {:asked, 1}
    assert_received {:asked, 1}
    refute_received {:asked, _}
  end

  test "an error that is not the rows' fault refuses none" do
    # A nearly full disk: a row that needs a new page fails, an existing one passes.
    for reason <- [
          :disk_full,
          :connection_lost,
          :timeout,
          :queue_timeout,
          {:away, :out_of_memory}
        ] do
      full = fn rows -> if Enum.any?(rows, &(&1 in 40..60)), do: {:error, reason}, else: :ok end

      for _round <- 1..20 do
        case Batch.write(Enum.to_list(1..100), full, true) do
          {:ok, written, refused} ->
            assert {refused, Enum.filter(written, &(&1 in 40..60))} == {[], []}

          {:error, ^reason} ->
            :ok
        end
      end
    end
  end

  test "a store that goes away in the middle refuses nothing" do
    calls = :counters.new(1, [])

    # There for the probe, gone while the rows are halved.
    leaving = fn rows ->
      :counters.add(calls, 1, 1)
      call = :counters.get(calls, 1)
      if call > 1 and call < 6 and length(rows) < 26, do: :ok, else: {:error, :away}
    end

    assert {:ok, written, []} = Batch.write(Enum.to_list(1..100), leaving, true)
    assert length(written) < 100
  end
end
