defmodule Plausible.Webhooks.NativeJsonStructTest do
  # Dates, times and decimals; and structs that only look like them.
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Native

  @far Integer.pow(10, 30)

  defp text(struct) do
    assert {:ok, json} = Native.encode(struct)
    assert String.starts_with?(json, "\"") and String.ends_with?(json, "\"")
    String.slice(json, 1..-2//1)
  end

  defp random_time do
    precision = :rand.uniform(7) - 1
    micro = if precision == 0, do: 0, else: :rand.uniform(1_000_000) - 1
    n = &(:rand.uniform(&1) - 1)
    %{Time.new!(n.(24), n.(60), n.(60)) | microsecond: {micro, precision}}
  end

  defp random_date do
    Date.from_gregorian_days(:rand.uniform(9999 * 365 * 2) - 9999 * 365)
  end

  test "dates and times are Elixir's own ISO 8601, letter for letter" do
    :rand.seed(:exsss, {20, 24, 229})

    for _ <- 1..5000 do
      date = random_date()
      time = random_time()
      naive = NaiveDateTime.new!(date, time)
      naive = %{naive | microsecond: time.microsecond}
      utc = DateTime.from_naive!(naive, "Etc/UTC")

      zoned = %{
        utc
        | time_zone: Enum.random(["Europe/Tallinn", "Etc/UTC", ""]),
          zone_abbr: "X",
          utc_offset: :rand.uniform(100_000) - 50_000,
          std_offset: Enum.random([0, 3600, -3600, 1800])
      }

      assert text(date) == Date.to_iso8601(date)
      assert text(time) == Time.to_iso8601(time)
      assert text(naive) == NaiveDateTime.to_iso8601(naive)
      assert text(utc) == DateTime.to_iso8601(utc)
      assert text(zoned) == DateTime.to_iso8601(zoned)
    end
  end

  test "every offset that means something" do
    for utc <- [0, 1, 59, 60, 3599, 3600, -1, -60, -3600, -12_600, 50_400], std <- [0, 3600] do
      zoned = %{~U[2024-02-29 10:00:00Z] | utc_offset: utc, std_offset: std, time_zone: "A/B"}
      assert text(zoned) == DateTime.to_iso8601(zoned)
      zoned = %{zoned | time_zone: "Etc/UTC"}
      assert text(zoned) == DateTime.to_iso8601(zoned)
    end
  end

  test "fields that cannot be are refused" do
    wrong = [nil, "1", 1.0, -1, 100, @far, -@far, [], {1}, :a]

    for struct <- [
          ~D[2024-02-28],
          ~T[10:00:00],
          ~N[2024-02-28 10:00:00],
          ~U[2024-02-28 10:00:00Z]
        ],
        field <- [:year, :month, :day, :hour, :minute, :second],
        is_map_key(struct, field),
        value <- wrong,
        not (field == :year and value in [-1, 100]) do
      broken = %{struct | field => value}
      assert Native.encode([broken]) == {:error, {:invalid_struct, [0]}}
    end

    for date <- [
          {2023, 2, 29},
          {2024, 2, 30},
          {2024, 4, 31},
          {2024, 0, 1},
          {2024, 13, 1},
          {2024, 1, 0},
          {1900, 2, 29},
          {10_000, 1, 1},
          {-10_000, 1, 1}
        ] do
      {year, month, day} = date
      broken = %{~D[2024-01-01] | year: year, month: month, day: day}
      assert Native.encode(broken) == {:error, {:invalid_struct, []}}
    end

    for micro <- [
          nil,
          5,
          {},
          {1},
          {1, 2, 3},
          {1_000_000, 6},
          {-1, 6},
          {0, 7},
          {0, -1},
          {0, @far},
          {@far, 0},
          {"1", 1},
          {1.0, 1},
          [1, 2]
        ] do
      broken = %{~T[10:00:00] | microsecond: micro}
      assert Native.encode(broken) == {:error, {:invalid_struct, []}}
    end

    utc = ~U[2024-02-28 10:00:00Z]

    for change <- [
          %{utc_offset: nil},
          %{utc_offset: 86_400},
          %{utc_offset: @far},
          %{std_offset: "0"},
          %{std_offset: -@far},
          %{utc_offset: 80_000, std_offset: 80_000},
          %{time_zone: nil},
          %{time_zone: :utc},
          %{time_zone: ~c"Etc/UTC"}
        ] do
      assert Native.encode(%{"t" => Map.merge(utc, change)}) ==
               {:error, {:invalid_struct, ["t"]}}
    end
  end

  test "structs without their fields are refused" do
    for module <- [Date, Time, NaiveDateTime, DateTime, Decimal] do
      assert Native.encode(%{__struct__: module}) == {:error, {:invalid_struct, []}}
    end

    for struct <- [
          ~D[2024-01-01],
          ~T[10:00:00],
          ~N[2024-01-01 10:00:00],
          ~U[2024-01-01 10:00:00Z]
        ],
        field <- Map.keys(struct) -- [:__struct__, :zone_abbr] do
      assert Native.encode(Map.delete(struct, field)) == {:error, {:invalid_struct, []}}
    end
  end

  test "calendars other than ISO are refused" do
    for struct <- [
          ~D[2024-01-01],
          ~T[10:00:00],
          ~N[2024-01-01 10:00:00],
          ~U[2024-01-01 10:00:00Z]
        ],
        calendar <- [Calendar.Other, nil, "Calendar.ISO"] do
      assert Native.encode([%{struct | calendar: calendar}]) ==
               {:error, {:unsupported_calendar, [0]}}
    end
  end

  test "any other struct is refused" do
    for struct <- [
          1..2,
          MapSet.new([1]),
          %URI{},
          ~r/a/,
          %{__struct__: "Date"},
          %{__struct__: nil},
          %{__struct__: 1, a: 2}
        ] do
      assert Native.encode(%{"a" => [struct]}) == {:error, {:unknown_struct, ["a", 0]}}
    end
  end

  # Decimal comes from Hex; its struct is all that is needed.
  defp decimal(sign, coef, exp), do: %{__struct__: Decimal, sign: sign, coef: coef, exp: exp}

  test "decimals are strings that keep their digits" do
    for {struct, wanted} <- [
          {decimal(1, 4900, -2), "49.00"},
          {decimal(-1, 4900, -2), "-49.00"},
          {decimal(1, 0, 0), "0"},
          {decimal(1, 0, -2), "0.00"},
          {decimal(1, 5, -1), "0.5"},
          {decimal(1, 123, 0), "123"},
          {decimal(1, 123, 1), "1.23E+3"},
          {decimal(1, 1, -7), "1E-7"},
          {decimal(1, 1, -6), "0.000001"},
          {decimal(1, 12, 1_000_000_000), "1.2E+1000000001"},
          {decimal(-1, 12, -1_000_000_000), "-1.2E-999999999"},
          {decimal(1, @far, -2), "1" <> String.duplicate("0", 28) <> ".00"},
          {decimal(1, Integer.pow(10, 1000) + 1, -1000),
           "1." <> String.duplicate("0", 999) <> "1"}
        ] do
      assert text(struct) == wanted
    end
  end

  test "decimals that are none are refused" do
    assert Native.encode(decimal(1, :NaN, 0)) == {:error, {:not_finite, []}}
    assert Native.encode([decimal(-1, :inf, 0)]) == {:error, {:not_finite, [0]}}
    assert Native.encode(decimal(1, Integer.pow(2, 4096), 0)) == {:error, {:too_large, []}}

    for struct <- [
          decimal(0, 1, 0),
          decimal(2, 1, 0),
          decimal(nil, 1, 0),
          decimal(1, -1, 0),
          decimal(1, -@far, 0),
          decimal(1, 1.5, 0),
          decimal(1, "1", 0),
          decimal(1, :other, 0),
          decimal(1, nil, 0),
          decimal(1, 1, nil),
          decimal(1, 1, 1.0),
          decimal(1, 1, @far),
          decimal(1, 1, Integer.pow(2, 62))
        ] do
      assert Native.encode(%{"d" => struct}) == {:error, {:invalid_struct, ["d"]}}
    end
  end
end
