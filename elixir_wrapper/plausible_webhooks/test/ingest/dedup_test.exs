defmodule Plausible.Webhooks.Ingest.DedupTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Ingest.Dedup

  defp key(n, path \\ "/a"), do: {1, 2, n, path}

  test "a key is new once, also after one turn, and new again after two" do
    dedup = Dedup.new()
    assert Dedup.first_time?(dedup, key(1))
    refute Dedup.first_time?(dedup, key(1))
    :ok = Dedup.rotate(dedup)
    :ok = Dedup.rotate(dedup)
    assert Dedup.first_time?(dedup, key(1))
  end

  test "a key that keeps being seen stays known over every turn" do
    dedup = Dedup.new()
    assert Dedup.first_time?(dedup, key(1))

    for _ <- 1..5 do
      :ok = Dedup.rotate(dedup)
      refute Dedup.first_time?(dedup, key(1))
    end
  end

  test "keeps its bound; beyond it, keys count as new" do
    dedup = Dedup.new(100)
    assert Enum.all?(1..100, &Dedup.first_time?(dedup, key(&1)))
    assert Dedup.full?(dedup)
    assert Enum.all?(101..10_000, &Dedup.first_time?(dedup, key(&1)))
    assert entries(dedup) == 125
    # Not remembered, so new again.
    assert Dedup.first_time?(dedup, key(9_999))
    refute Dedup.first_time?(dedup, key(1))
    :ok = Dedup.rotate(dedup)
    refute Dedup.full?(dedup)
    refute Dedup.first_time?(dedup, key(1))
  end

  defp entries(dedup),
    do: dedup.tables |> Tuple.to_list() |> Enum.map(&:ets.info(&1, :size)) |> Enum.sum()

  test "of many processes at once exactly one finds the key new" do
    dedup = Dedup.new()

    for n <- 1..200 do
      answers =
        1..8
        |> Enum.map(fn _ -> Task.async(fn -> Dedup.first_time?(dedup, key(n)) end) end)
        |> Task.await_many(60_000)

      assert Enum.count(answers, & &1) == 1
    end
  end

  test "a rotation while others ask loses nothing" do
    dedup = Dedup.new()

    askers =
      for n <- 1..4 do
        Task.async(fn -> Enum.count(1..5_000, &Dedup.first_time?(dedup, key({n, &1}))) end)
      end

    for _ <- 1..50, do: Dedup.rotate(dedup)
    assert Task.await_many(askers, 60_000) == [5_000, 5_000, 5_000, 5_000]
  end

  test "long paths that differ at the end are different" do
    dedup = Dedup.new()
    path = String.duplicate("x", 1_000)
    assert Dedup.first_time?(dedup, key(1, path <> "1"))
    assert Dedup.first_time?(dedup, key(1, path <> "2"))
    refute Dedup.first_time?(dedup, key(1, path <> "2"))
  end
end
