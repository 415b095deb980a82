defmodule Plausible.Webhooks.Faults.Rows.Dns do
  @moduledoc false
  # Name servers that lie, fail, or say nothing.

  alias Plausible.Webhooks.Faults.{Names, Row}

  @good {127, 0, 0, 1}
  @private {10, 0, 0, 1}
  @metadata {169, 254, 169, 254}
  @failed [:dns_error, :dns_timeout]
  @blocked [:blocked_address]

  def rows, do: failures() ++ lies() ++ records() ++ addresses()

  defp dns(zone), do: {:dns, zone}

  defp failures do
    codes =
      for {name, code} <- [
            FORMERR: 1,
            SERVFAIL: 2,
            NXDOMAIN: 3,
            NOTIMP: 4,
            REFUSED: 5,
            YXDOMAIN: 6,
            of_15: 15
          ] do
        {"#{name}", dns(a: {:code, code}, aaaa: {:code, code}), @failed}
      end

    Row.all(
      :dns_failure,
      codes ++
        [
          {"no address", dns([]), :dns_error},
          {"no answer from DNS", dns(a: :silent, aaaa: :silent), :dns_timeout, detail: "DNS"},
          {"answer too late", dns(a: {:after, 30_000, {:a, [@good]}}, aaaa: :silent),
           :dns_timeout},
          {"late answer", dns(a: {:after, 300, {:a, [@good]}}), :delivered},
          {"slow AAAA", dns(a: {:a, [@good]}, aaaa: :silent), :delivered, prompt: true},
          {"AAAA fails", dns(a: {:a, [@good]}, aaaa: {:code, 2}), :delivered},
          {"AAAA does not exist", dns(a: {:a, [@good]}, aaaa: {:code, 3}), :delivered},
          {"SERVFAIL, then an answer",
           dns(a: {:turns, [{:code, 2}, {:a, [@good]}]}, aaaa: {:records, []}),
           [:delivered | @failed]},
          {"truncated, whole by TCP", dns(a: {:truncated, {:a, [@good]}}), :delivered},
          {"truncated, silent by TCP", dns(a: {:truncated, :silent}, aaaa: {:truncated, :silent}),
           @failed},
          {"loop of aliases", dns(other: {:records, []}, a: {:cname, "a"}, aaaa: {:cname, "a"}),
           @failed},
          {"alias of itself", dns(a: {:raw, &alias_of_itself/1}), @failed}
        ]
    )
  end

  defp lies do
    Row.all(:dns_lie, [
      {"wrong id", dns(a: {:raw, &wrong_id/1}, aaaa: :silent), @failed},
      {"300 wrong ids, then the right one", dns(a: {:raw, &storm/1}), [:delivered | @failed]},
      {"another question", dns(a: {:raw, &other_question/1}, aaaa: :silent), @failed},
      # c-ares 1.34 takes the addresses of an answer, whatever names they belong to.
      {"answer for another name", dns(a: {:raw, &other_name/1}, aaaa: :silent),
       [:delivered | @failed]},
      {"a question back", dns(a: {:raw, &question_back/1}, aaaa: :silent), @failed},
      {"empty packet", dns(a: {:raw, fn _ -> "" end}, aaaa: :silent), @failed},
      {"packet of a byte", dns(a: {:raw, fn _ -> "x" end}, aaaa: :silent), @failed},
      {"60 KB of noise",
       dns(a: {:raw, fn q -> <<q.id::16>> <> :binary.copy("n", 60_000) end}, aaaa: :silent),
       @failed},
      {"header alone",
       dns(a: {:raw, fn q -> <<q.id::16, 0x8180::16, 1::16, 1::16, 0::32>> end}, aaaa: :silent),
       @failed},
      {"name that points to itself", dns(a: {:raw, &pointer_loop/1}, aaaa: :silent), @failed},
      {"junk behind the answer",
       dns(a: {:raw, fn q -> Names.packet(q, [Names.record(@good, 60)]) <> "junk" end}),
       [:delivered | @failed]},
      {"two answers to one question",
       dns(a: {:raw, fn q -> List.duplicate(Names.packet(q, [Names.record(@good, 60)]), 2) end}),
       :delivered}
    ])
  end

  defp records do
    a = 1

    Row.all(:dns_record, [
      {"more records said than sent", dns(a: {:records, 500, [Names.record(@good, 60)]}),
       [:delivered | @failed]},
      {"address of five bytes", dns(a: {:records, [Names.resource(a, 60, <<127, 0, 0, 1, 1>>)]}),
       [:delivered | @failed]},
      {"address of no bytes", dns(a: {:records, [Names.resource(a, 60, "")]}), @failed},
      {"record longer than the packet",
       dns(a: {:records, [<<0xC00C::16, a::16, 1::16, 60::32, 0xFFFF::16, 127, 0, 0, 1>>]}),
       @failed},
      {"unknown records before the address",
       dns(a: {:records, [Names.resource(65_280, 60, "?"), Names.record(@good, 60)]}),
       :delivered},
      {"TTL 0", dns(a: {:a, [@good], 0}), :delivered},
      {"TTL of 136 years", dns(a: {:a, [@good], 0xFFFFFFFF}), :delivered},
      {"alias into a good name",
       dns(Map.to_list(%{"b" => {:a, [@good]}, a: {:raw, &alias_and_address/1}})), :delivered},
      {"64 good addresses", dns(a: {:a, List.duplicate(@good, 64)}), :delivered},
      {"65 good addresses", dns(a: {:a, for(n <- 1..65, do: {127, 0, 0, n})}),
       [:delivered, :dns_error, :blocked_address]},
      {"65 addresses, the last one private",
       dns(a: {:a, for(n <- 1..64, do: {127, 0, 0, n}) ++ [@private]}), @blocked ++ [:dns_error]},
      {"1 000 addresses by TCP",
       dns(a: {:truncated, {:a, for(n <- 1..1_000, do: {127, 0, div(n, 250), rem(n, 250) + 1})}}),
       [:delivered, :dns_error, :blocked_address]},
      {"dead addresses before the good one",
       dns(a: {:a, [{127, 9, 9, 9}, {127, 9, 9, 8}, @good]}), :delivered}
    ])
  end

  defp addresses do
    loopback6 = {0, 0, 0, 0, 0, 0, 0, 1}

    Row.all(:dns_address, [
      {"private address", dns(a: {:a, [@private]}), @blocked},
      {"private among public ones", dns(a: {:a, [@good, @private, @good]}), @blocked},
      {"metadata service", dns(a: {:a, [@good, @metadata]}), @blocked},
      {"0.0.0.0", dns(a: {:a, [{0, 0, 0, 0}]}), @blocked},
      {"broadcast", dns(a: {:a, [{255, 255, 255, 255}]}), @blocked},
      {"multicast", dns(a: {:a, [{224, 0, 0, 1}]}), @blocked},
      {"::1", dns(aaaa: {:a, [loopback6]}), @blocked},
      {"private by AAAA, public by A",
       dns(a: {:a, [@good]}, aaaa: {:a, [{0xFC00, 0, 0, 0, 0, 0, 0, 1}]}), @blocked},
      {"IPv4 within IPv6", dns(aaaa: {:a, [{0, 0, 0, 0, 0, 0xFFFF, 0x0A00, 1}]}), @blocked},
      {"NAT64", dns(aaaa: {:a, [{0x64, 0xFF9B, 0, 0, 0, 0, 0x0A00, 1}]}), @blocked},
      {"6to4", dns(aaaa: {:a, [{0x2002, 0x0A00, 1, 0, 0, 0, 0, 1}]}), @blocked},
      {"link-local", dns(aaaa: {:a, [{0xFE80, 0, 0, 0, 0, 0, 0, 1}]}), @blocked}
    ])
  end

  defp wrong_id(question),
    do:
      Names.packet(%{question | id: Bitwise.bxor(question.id, 0x5555)}, [Names.record(@good, 60)])

  defp storm(question) do
    wrong =
      for n <- 1..300,
          do:
            Names.packet(%{question | id: Bitwise.bxor(question.id, n)}, [
              Names.record(@private, 60)
            ])

    wrong ++ [Names.packet(question, [Names.record(@good, 60)])]
  end

  defp other_question(question) do
    text = Names.name("other.example") <> <<question.type::16, 1::16>>
    Names.packet(%{question | text: text}, [Names.record(@good, 60)])
  end

  defp other_name(question) do
    address = <<1::16, 1::16, 60::32, 4::16, 127, 0, 0, 1>>
    Names.packet(question, [Names.name("other.example") <> address])
  end

  defp question_back(question), do: Names.packet(question, 0x0100, [], 0)

  # At offset 12 stands the question's name.
  defp pointer_loop(question) do
    header = <<question.id::16, 0x8180::16, 1::16, 1::16, 0::32>>
    <<header::binary, 0xC0, 12, question.type::16, 1::16, 0xC0, 12>>
  end

  defp alias_of_itself(question),
    do: Names.packet(question, [Names.resource(5, 60, Names.name(question.host))])

  defp alias_and_address(question) do
    target = Names.name("b." <> question.host)
    address = target <> <<1::16, 1::16, 60::32, 4::16, 127, 0, 0, 1>>
    Names.packet(question, [Names.resource(5, 60, target), address])
  end
end
