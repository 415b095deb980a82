defmodule Plausible.Webhooks.NativeJsonDecodeTest do
  # What decode/1 reads, what it refuses, and the byte it names. The reader's own tests
  # cover the grammar.
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Native

  defp term(json) do
    assert {:ok, term} = Native.decode(json)
    term
  end

  test "values become terms" do
    assert term("null") == nil
    assert term("[true,false]") == [true, false]
    assert term(" \t\r\n{} ") == %{}
    assert term("[]") == []

    assert term(~S({"a":{"b":[1,[2.5],{"c":null}]},"":""})) ==
             %{"a" => %{"b" => [1, [2.5], %{"c" => nil}]}, "" => ""}

    assert term(~S("\"\\\/\b\f\n\r\té€😀 \u00e9\ud83d\ude00\u0000")) ==
             "\"\\/\b\f\n\r\té€😀 é😀\0"
  end

  test "keys are binaries, never atoms" do
    name = "key_that_is_no_atom_#{System.unique_integer([:positive])}"
    assert term(~s({"#{name}":1})) == %{name => 1}
    assert_raise ArgumentError, fn -> String.to_existing_atom(name) end
  end

  test "of equal keys the last one counts" do
    assert term(~S({"a":1,"b":2,"a":3})) == %{"a" => 3, "b" => 2}
    assert term(~S({"a":1,"\u0061":2})) == %{"a" => 2}
    assert term(~S({"a":{"x":1,"x":2},"a":[{"y":1,"y":2}]})) == %{"a" => [%{"y" => 2}]}
  end

  # OTP makes maps of more than 32 pairs another way than smaller ones.
  test "maps are valid with any number of pairs and equal keys" do
    for pairs <- [2, 31, 32, 33, 34, 40, 64, 65, 100, 5_000],
        distinct <- Enum.uniq([1, 2, 16, 31, 32, 33, div(pairs, 2), pairs - 1, pairs]),
        distinct in 1..pairs//1 do
      entries = for i <- 1..pairs, do: {"k#{rem(i * 7, distinct)}", i}
      json = "{" <> Enum.map_join(entries, ",", fn {k, v} -> ~s("#{k}":#{v}) end) <> "}"
      expected = Map.new(entries)
      decoded = term(json)
      assert Enum.sort(Map.keys(decoded)) == Enum.sort(Map.keys(expected))
      assert decoded === expected and expected === decoded
      assert Map.put(decoded, "new", 1) === Map.put(expected, "new", 1)
      assert :erlang.binary_to_term(:erlang.term_to_binary(decoded)) === expected
    end
  end

  test "integers of 64 bits are exact, larger ones refused" do
    for exponent <- [0, 31, 53, 59, 60, 62], offset <- [-1, 0, 1] do
      integer = Integer.pow(2, exponent) + offset
      assert term(Integer.to_string(integer)) === integer
      assert term("[#{-integer}]") === [-integer]
    end

    limit = Integer.pow(2, 63)
    assert term("[#{limit - 1},#{-limit}]") == [limit - 1, -limit]
    assert Native.decode("[0,#{limit}]") == {:error, {:number_out_of_range, 3}}
    assert Native.decode("#{-limit - 1}") == {:error, {:number_out_of_range, 0}}
    assert Native.decode(String.duplicate("9", 1_000_000)) == {:error, {:number_out_of_range, 0}}
  end

  test "floats: range, zero's sign, and integers that stay integers" do
    assert term("-0") === 0
    assert <<1::1, 0::63>> = <<term("-0.0")::float>>
    assert term("1.0") === 1.0
    assert term("1e2") === 100.0
    assert term("100") === 100
    assert term("0.95000000000000000000") === 0.95
    assert term("5e-324") === 5.0e-324
    assert Native.decode("1e400") == {:error, {:number_out_of_range, 0}}
    assert Native.decode("1e-400") == {:error, {:number_out_of_range, 0}}
    assert Native.decode(~S({"a":[1,-1.8e308]})) == {:error, {:number_out_of_range, 8}}
  end

  test "faults, and their offsets" do
    for {json, reason, offset} <- [
          {"", :empty, 0},
          {"[1,2", :unexpected_end, 4},
          {"[1,]", :unexpected_token, 3},
          {~S({"a" 1}), :unexpected_token, 5},
          {"[1]x", :trailing_content, 3},
          {"[tru]", :invalid_literal, 1},
          {"[01]", :invalid_number, 1},
          {"\"a", :unclosed_string, 0},
          {"\"a\nb\"", :control_character, 2},
          {~S("a\x"), :invalid_escape, 2},
          {~S(["\ud800"]), :invalid_escape, 2},
          {"[\"\xff\"]", :invalid_utf8, 2},
          {"\uFEFF[]", :byte_order_mark, 0},
          {String.duplicate("[", 129), :too_deep, 128},
          {String.duplicate(~S({"a":), 129), :too_deep, 640},
          {:binary.copy(" ", 8 * 1024 * 1024 + 1), :too_large, 8 * 1024 * 1024}
        ] do
      assert Native.decode(json) == {:error, {reason, offset}}
    end
  end

  test "a fault at the end of a document of any size is at its byte" do
    for size <- [100, 5000, 8190, 8191, 8192, 8193, 100_000] do
      json = "[" <> String.duplicate("0,", div(size, 2)) <> "x]"
      assert Native.decode(json) == {:error, {:invalid_literal, byte_size(json) - 2}}
    end
  end

  test "anything but a binary is an ArgumentError" do
    for argument <- [nil, 1, ~c"[]", [], %{}, <<1::1>>, ["[]"]] do
      assert_raise ArgumentError, fn -> Native.decode(argument) end
    end
  end

  test "a term keeps nothing of the document alive" do
    json = ~s(["#{String.duplicate("a", 100)}") <> String.duplicate(" ", 100_000) <> "]"
    [text] = term(json)
    assert :binary.referenced_byte_size(text) < 1000
  end
end
