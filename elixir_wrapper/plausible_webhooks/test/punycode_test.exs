defmodule Plausible.Webhooks.PunycodeTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.{Native, Punycode}

  doctest Punycode

  # RFC 3492, section 7.1, those that are host names; and names of every plane.
  @names %{
    "egbpdaj6bu4bxfgehfvwxn" => "ليهمابتكلموشعربي؟",
    "ihqwcrb4cv8a8dqg056pqjye" => "他们为什么不说中文",
    "ihqwctvzc91f659drss3x8bo0yb" => "他們爲什麽不說中文",
    "Proprostnemluvesky-uyb24dma41a" => "Pročprostěnemluvíčesky",
    "4dbcagdahymbxekheh6e0a7fei0b" => "למההםפשוטלאמדבריםעברית",
    "i1baa7eci9glrd9b2ae1bj0hfcgg6iyaf8o0a1dig0cd" => "यहलोगहिन्दीक्योंनहींबोलसकतेहैं",
    "n8jok5ay5dzabd5bym9f0cm5685rrjetr6pdxa" => "なぜみんな日本語を話してくれないのか",
    "b1abfaaepdrnnbgefbaDotcwatmq2g4l" => "почемужеонинеговорятпорусски",
    "PorqunopuedensimplementehablarenEspaol-fmd56a" => "PorquénopuedensimplementehablarenEspañol",
    "TisaohkhngthchnitingVit-kjcr8268qyxafd2f1b9g" => "TạisaohọkhôngthểchỉnóitiếngViệt",
    "3B-ww4c5e180e575a65lsy2b" => "3年B組金八先生",
    "-with-SUPER-MONKEYS-pc58ag80a8qai00g7n9n" => "安室奈美恵-with-SUPER-MONKEYS",
    "Hello-Another-Way--fc4qua05auwb3674vfr0b" => "Hello-Another-Way-それぞれの場所",
    "2-u9tlzr9756bt3uc0v" => "ひとつ屋根の下2",
    "MajiKoi5-783gue6qz075azm5e" => "MajiでKoiする5秒前",
    "de-jg4avhby1noc0d" => "パフィーdeルンバ",
    "d9juau41awczczp" => "そのスピードで"
  }

  test "the RFC's own examples" do
    for {encoded, text} <- @names, do: assert(Punycode.decode(encoded) == {:ok, text})
    assert Punycode.decode("") == {:ok, ""}
    assert Punycode.decode("abc-") == {:ok, "abc"}
  end

  test "what the library that dials has encoded comes back" do
    :rand.seed(:exsss, {1, 2, 3})

    alphabets = [
      Enum.to_list(?a..?z),
      ~c"äöüéèñçåøðþ",
      Enum.to_list(?а..?я),
      Enum.to_list(?ぁ..?ん),
      Enum.to_list(0x4E00..0x4FFF),
      Enum.to_list(0x5D0..0x5EA),
      Enum.to_list(0x20000..0x20100)
    ]

    found =
      for _ <- 1..2_000, reduce: 0 do
        found ->
          alphabet = Enum.random(alphabets)
          label = for _ <- 1..Enum.random(1..12), into: "", do: <<Enum.random(alphabet)::utf8>>

          case Native.check_url("https://#{label}.example/", %{}) do
            {:ok, %{host: "xn--" <> _ = host}} ->
              assert Punycode.readable(host) == label <> ".example"
              found + 1

            {:ok, %{host: host}} ->
              assert Punycode.readable(host) == nil
              found

            {:error, _reason} ->
              found
          end
      end

    assert found > 1_000
  end

  test "only what is encoded has another form, label by label" do
    for host <- ["example.com", "127.0.0.1", "[2001:db8::1]", "", "xn", "axn--bcher-kva.com"],
        do: assert(Punycode.readable(host) == nil)

    assert Punycode.readable("a.xn--bcher-kva.xn--p1ai") == "a.bücher.рф"
  end

  # Encoded by another implementation of the RFC (Python's).
  test "what would lie is not readable" do
    for encoded <- [
          # a and b with a right-to-left override, a joiner, a space of no width, a soft
          # hyphen, a control character between them
          "ab-g4t",
          "ab-m1t",
          "ab-g1t",
          "ab-5da",
          "ab-qa",
          # fraction slash, one dot leader, full-width full stop, no-break space
          "ab-c6t",
          "ab-l3t",
          "ab-yu3n",
          "ab-1ca",
          # private use, line separator, unassigned
          "ab-je4l",
          "ab-x3t",
          "ab-wd9k",
          # begins with a mark
          "a-wbb",
          # needs no encoding at all, and could pass for another
          "example-",
          "abc-"
        ] do
      assert {:ok, decoded} = Punycode.decode(encoded)
      assert Punycode.readable("xn--" <> encoded <> ".example") == nil, inspect(decoded)
      # One is enough.
      assert Punycode.readable("xn--bcher-kva.xn--" <> encoded) == nil
    end
  end

  test "what is no encoding is refused, whatever it is" do
    for encoded <- ["a", "ab c-kva", "bücher", "-", "--", "a-\0", "99999999", "zzzzzzzz", <<255>>] do
      assert Punycode.readable("xn--" <> encoded) == nil
    end

    # A surrogate, and the first beyond Unicode; their neighbours.
    for encoded <- ["ib9b", "en32g"], do: assert(Punycode.decode(encoded) == :error)
    assert Punycode.decode("db9b") == {:ok, "\u{D7FB}"}
    assert Punycode.decode("dn32g") == {:ok, "\u{10FFFF}"}

    junk = fn -> :crypto.strong_rand_bytes(:rand.uniform(59)) end
    digits = fn -> for _ <- 1..:rand.uniform(59), into: "", do: <<Enum.random(~c"abz0189-")>> end

    for make <- [junk, digits], _ <- 1..10_000 do
      case Punycode.readable("xn--" <> make.()) do
        nil -> :ok
        text -> assert String.valid?(text) and not (text =~ ~r/[\p{C}\p{Z}\p{S}]/u)
      end
    end
  end

  test "is bounded" do
    long = String.duplicate("9", 60)
    assert Punycode.decode(long) == :error
    assert Punycode.decode(String.duplicate("a", 64)) == :error
    assert Punycode.readable("xn--" <> String.duplicate("a", 60)) == nil
    assert Punycode.readable(String.duplicate("xn--bcher-kva.", 40)) == nil
    {micros, _} = :timer.tc(fn -> Punycode.readable("xn--" <> String.duplicate("z", 59)) end)
    assert micros < 50_000
  end
end
