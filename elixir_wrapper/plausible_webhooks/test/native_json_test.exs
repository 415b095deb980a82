defmodule Plausible.Webhooks.NativeJsonTest do
  # What encode/1 writes, what it refuses, and the path to the fault.
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Native

  doctest Native, only: [encode: 1, decode: 1]

  defp json(term) do
    assert {:ok, json} = Native.encode(term)
    json
  end

  defp refused(term) do
    assert {:error, {reason, path}} = Native.encode(term)
    {reason, path}
  end

  defp nested(inner, depth), do: Enum.reduce(1..depth//1, inner, fn _, term -> [term] end)

  describe "scalars" do
    test "atoms: nil and the booleans are JSON's, others are strings" do
      assert json(nil) == "null"
      assert json(true) == "true"
      assert json(false) == "false"
      assert json(:undefined) == ~s("undefined")
      assert json(:"") == ~s("")
      assert json(:"a\"\n") == ~S("a\"\n")
    end

    test "atoms up to the longest, in ASCII" do
      longest = String.duplicate("a", 255)
      assert json(String.to_atom(longest)) == ~s("#{longest}")
      assert json(%{String.to_atom(longest) => 1}) == ~s({"#{longest}":1})
      assert json(:"a\0b") == ~S("a\u0000b")

      for atom <- [:é, :"Ã©", :日本語] do
        assert refused([atom]) == {:unsupported_type, [0]}
        assert refused(%{atom => 1}) == {:unsupported_key, []}
      end
    end

    test "integers of 64 bits with their sign" do
      edges =
        for exponent <- [0, 7, 31, 32, 53, 59, 60, 62, 63],
            integer <- [Integer.pow(2, exponent) - 1, -Integer.pow(2, exponent)],
            do: integer

      for integer <- [0 | edges], do: assert(json(integer) == Integer.to_string(integer))

      for integer <- [Integer.pow(2, 63), -Integer.pow(2, 63) - 1, Integer.pow(2, 100_000)] do
        assert refused(integer) == {:too_large, []}
        assert refused(%{"n" => [0, integer]}) == {:too_large, ["n", 1]}
      end
    end

    test "floats read back as the same float" do
      assert json(1.0) == "1.0"
      assert json(-0.0) == "-0.0"
      assert json(110.5) == "110.5"
      assert json(1.0e300) == "1e+300"
      assert json(5.0e-324) == "5e-324"
    end

    test "binaries are UTF-8 or refused" do
      assert json("") == ~s("")
      assert json("a\"\\\b\f\n\r\t/\0\x1f\x7f") == ~S("a\"\\\b\f\n\r\t/\u0000\u001f) <> "\x7f\""
      assert json("é€😀\u2028") == "\"é€😀\u2028\""
      assert refused("\xff") == {:invalid_utf8, []}
      assert refused(["ok", String.duplicate("é", 50) <> "\xc3"]) == {:invalid_utf8, [1]}
      assert refused("\xed\xa0\x80") == {:invalid_utf8, []}
      assert refused(<<1::3>>) == {:unsupported_type, []}
    end

    test "binaries that do not start on a byte are encoded" do
      <<_::3, text::binary-size(35), _::5>> = <<0::3, String.duplicate("aé\n日", 5)::binary, 0::5>>
      assert json(text) == json(String.duplicate("aé\n日", 5))
      assert json(%{text => text}) == json(%{:binary.copy(text) => :binary.copy(text)})
    end
  end

  describe "containers" do
    test "lists and maps" do
      assert json([]) == "[]"
      assert json(%{}) == "{}"
      assert json([[], %{}, [[1]]]) == "[[],{},[[1]]]"
      assert json(~c"ab") == "[97,98]"
      assert json(%{"a" => %{b: [1]}}) == ~S({"a":{"b":[1]}})
    end

    test "keys are binaries or atoms" do
      assert json(%{nil: 1}) == ~S({"nil":1})
      assert json(%{"\n" => 1}) == ~S({"\n":1})

      for key <- [1, 1.0, {1}, [], %{}, self(), <<1::1>>, make_ref()] do
        assert refused(%{"m" => %{key => 1}}) == {:unsupported_key, ["m"]}
      end

      assert refused([%{"\xff" => 1}]) == {:invalid_utf8, [0]}
    end

    test "binaries and atoms in one map are refused: they could come out alike" do
      assert refused(%{:a => 1, "a" => 2}) == {:mixed_keys, []}
      assert refused([0, %{"x" => %{:a => 1, "b" => 2}}]) == {:mixed_keys, [1, "x"]}
      many = Map.new(1..1000, &{Integer.to_string(&1), &1})
      assert {:ok, _} = Native.encode(many)
      assert refused(Map.put(many, :other, 1)) == {:mixed_keys, []}
    end

    test "improper lists name the list" do
      assert refused([1 | 2]) == {:improper_list, []}
      assert refused(%{a: [0, [1, 2 | 3]]}) == {:improper_list, ["a", 1]}
    end

    test "what has no JSON form" do
      port = hd(Port.list())
      structs = [~D[2026-11-23], 1..2, ~r/a/, %{__struct__: "Date"}, %{__struct__: 1, a: 2}]
      others = [{}, {1, 2}, {:json, "1"}, self(), make_ref(), fn -> 1 end, port, <<5::4>>]

      for term <- structs ++ others do
        assert refused([term]) == {:unsupported_type, [0]}
        assert refused(%{x: [1, term]}) == {:unsupported_type, ["x", 1]}
      end
    end
  end

  describe "limits" do
    test "at most 128 nested arrays and objects" do
      for depth <- [1, 127, 128] do
        assert json(nested(1, depth)) ==
                 String.duplicate("[", depth) <> "1" <> String.duplicate("]", depth)
      end

      assert refused(nested(1, 129)) == {:too_deep, List.duplicate(0, 128)}
      assert refused(nested([], 128)) == {:too_deep, List.duplicate(0, 128)}
      assert {:too_deep, path} = refused(nested(1, 1_000_000))
      assert path == List.duplicate(0, 128)

      maps = Enum.reduce(1..1000, 1, fn i, term -> %{"k#{rem(i, 10)}" => term} end)
      assert {:too_deep, path} = refused(maps)
      assert path == for(i <- 1000..873//-1, do: "k#{rem(i, 10)}")
    end

    test "exactly 8 MiB of output" do
      limit = 8 * 1024 * 1024
      text = :binary.copy("a", limit - 2)
      assert byte_size(json(text)) == limit
      assert refused(text <> "a") == {:too_large, []}
      assert refused(%{"t" => [text]}) == {:too_large, ["t", 0]}
      assert {:too_large, [_]} = refused(List.duplicate("abcdefgh", 1_000_000))
    end

    test "a path stays small: long keys are cut, at a character's end" do
      long = String.duplicate("é", 1_000_000)
      assert {:unsupported_type, [key, "x"]} = refused(%{long => %{"x" => self()}})
      assert key == String.duplicate("é", 32)
      odd = "a" <> String.duplicate("é", 100)
      assert {:unsupported_type, [key]} = refused(%{odd => self()})
      assert key == "a" <> String.duplicate("é", 31)
      exact = String.duplicate("k", 64)
      assert refused(%{exact => self()}) == {:unsupported_type, [exact]}
    end

    test "keys in a path are what they are in the JSON" do
      assert refused(%{a: %{"日" => %{"b" => [0, %{c: self()}]}}}) ==
               {:unsupported_type, ["a", "日", "b", 1, "c"]}

      assert refused(%{nil: %{true: self()}}) == {:unsupported_type, ["nil", "true"]}
    end
  end
end
