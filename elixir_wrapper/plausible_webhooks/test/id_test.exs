defmodule Plausible.Webhooks.IdTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Id

  doctest Id

  test "each kind has its prefix and 26 characters that cannot be mistaken" do
    for {make, prefix} <- [
          {&Id.delivery/0, "msg_"},
          {&Id.webhook/0, "wh_"},
          {&Id.alert/0, "alr_"}
        ] do
      assert make.() =~ ~r/^#{prefix}[0-7][0-9A-HJKMNP-TV-Z]{25}$/
    end
  end

  test "the time is in it, to the millisecond, at both ends of its range" do
    longest = Integer.pow(2, 48) - 1

    for ms <- [0, 1, 31, 32, 1_023, 1_024, 1_469_918_176_385, longest - 1, longest],
        make <- [&Id.delivery/1, &Id.webhook/1, &Id.alert/1] do
      assert Id.unix_ms(make.(ms)) == {:ok, ms}
    end

    # The example of the ULID specification.
    assert Id.unix_ms("msg_01ARZ3NDEKTSV4RRFFQ69G5FAV") == {:ok, 1_469_922_850_259}
    assert Id.delivery(1_469_918_176_385) =~ ~r/^msg_01ARYZ6S41/
    assert_raise FunctionClauseError, fn -> Id.delivery(-1) end
    assert_raise FunctionClauseError, fn -> Id.delivery(longest + 1) end
  end

  test "without a time it takes the system's" do
    before = System.system_time(:millisecond)
    {:ok, ms} = Id.unix_ms(Id.delivery())
    assert ms in before..System.system_time(:millisecond)
  end

  test "text order is time order" do
    times = Enum.map(1..2_000, fn _ -> :rand.uniform(Integer.pow(2, 48)) - 1 end)
    ids = Map.new(times, &{&1, Id.delivery(&1)})

    assert times |> Enum.uniq() |> Enum.sort() |> Enum.map(&ids[&1]) ==
             ids |> Map.values() |> Enum.sort()
  end

  test "a hundred thousand of one millisecond are all different, every character in use" do
    ids = for _ <- 1..100_000, do: Id.delivery(1)
    assert ids |> MapSet.new() |> MapSet.size() == 100_000

    random = ids |> Enum.take(2_000) |> Enum.map(&binary_part(&1, 14, 16))

    for position <- 0..15 do
      assert random |> Enum.map(&:binary.at(&1, position)) |> Enum.uniq() |> length() == 32
    end
  end

  test "what is not an id has no time" do
    for bad <- [
          "",
          "msg_",
          "msg_01ARZ3NDEKTSV4RRFFQ69G5FA",
          "msg_01ARZ3NDEKTSV4RRFFQ69G5FAVX",
          "msg_81ARZ3NDEKTSV4RRFFQ69G5FAV",
          "msg_01arz3ndektsv4rrffq69g5fav",
          "msg_01ARZ3NDEKTSV4RRFFQ69G5FAU",
          "xyz_01ARZ3NDEKTSV4RRFFQ69G5FAV",
          "msg_01ARZ3NDEKTSV4RRFFQ69G5FA\n",
          <<255>>
        ] do
      assert Id.unix_ms(bad) == :error
    end
  end
end
