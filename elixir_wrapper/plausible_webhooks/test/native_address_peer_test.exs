defmodule Plausible.Webhooks.NativeAddressPeerTest do
  # Every row of the IANA registries, with its bounds, their neighbours and all forms that
  # embed an IPv4 address: our verdict beside those of ipaddr.js and Python's ipaddress,
  # which know the registries by themselves. Each difference is explained.
  use ExUnit.Case, async: true

  import Bitwise

  alias Plausible.Webhooks.Native
  alias Plausible.Webhooks.Test.Peer

  @moduletag :tmp_dir
  @moduletag timeout: 120_000

  @iana Path.expand("../../../c_src/core/iana", __DIR__)

  # ipaddr.js's names for ranges that IANA marks as globally reachable.
  @reachable ~w(unicast amt as112 as112v6 orchid2 droneRemoteIdProtocolEntityTags)

  # Where a peer differs from us, and why we are right: the block, our verdict, the reason.
  # An address inside ::ffff:0:0/96 or 64:ff9b::/96 counts as the IPv4 address it carries.
  @both [
    {"168.63.129.16/32", :refused, "Azure's host, which IANA does not know"},
    {"3ffe::/16", :refused, "given back to IANA, RFC 3701"},
    {"::/3", :refused, "IANA assigns global unicast addresses inside 2000::/3 only"},
    {"4000::/2", :refused, "likewise"},
    {"8000::/1", :refused, "likewise"},
    {"192.0.0.9/32", :reachable, "IANA: globally reachable"},
    {"192.0.0.10/32", :reachable, "IANA: globally reachable"},
    {"2001:1::1/128", :reachable, "IANA: globally reachable"},
    {"2001:1::2/128", :reachable, "IANA: globally reachable"},
    {"2001:1::3/128", :reachable, "IANA: globally reachable"}
  ]
  @explained %{
    "classify" => @both,
    "classify_python" =>
      @both ++
        [
          {"192.0.0.0/24", :refused, "Python before 3.12.4 knows parts of this row only"},
          {"192.88.99.0/24", :refused, "deprecated, IANA says N/A"},
          {"2002::/16", :refused, "6to4 ends where a relay wants, IANA says N/A"},
          {"3fff::/20", :refused, "documentation since RFC 9637, later than Python 3.12"},
          {"2001:3::/32", :reachable, "IANA: globally reachable; Python before 3.12.4"},
          {"2001:4:112::/48", :reachable, "likewise"},
          {"2001:20::/28", :reachable, "likewise"},
          {"2001:30::/28", :reachable, "likewise"}
        ]
  }

  for verb <- ["classify", "classify_python"] do
    test "#{verb}: no difference without a reason", %{tmp_dir: dir} do
      addresses = addresses()
      assert length(addresses) > 1_000

      with {output, status} <- Peer.run(unquote(verb), addresses, dir) do
        assert status == 0
        verdicts = output |> String.split("\n", trim: true) |> Enum.map(&String.split/1)
        assert Enum.map(verdicts, &hd/1) == addresses

        assert for(
                 [address, range] <- verdicts,
                 not explained?(unquote(verb), address, range),
                 do: {address, range}
               ) == []
      end
    end
  end

  defp explained?(verb, address, range) do
    ours = if reachable?(address), do: :reachable, else: :refused
    theirs = if range in @reachable, do: :reachable, else: :refused

    ours == theirs or
      Enum.any?(@explained[verb], fn {block, verdict, _why} ->
        verdict == ours and inside?(carried(number(address)), block(block))
      end)
  end

  defp reachable?(address) do
    host = if address =~ ":", do: "[#{address}]", else: address

    case Native.check_url("https://#{host}/", %{}) do
      {:ok, _url} -> true
      {:error, :blocked_address} -> false
    end
  end

  defp addresses do
    numbers = Enum.flat_map(blocks(), &around/1)
    embedded = for {number, 32} <- numbers, form <- embedded(number), do: {form, 128}
    (numbers ++ embedded) |> Enum.uniq() |> Enum.map(&text/1)
  end

  defp blocks do
    for file <- Path.wildcard(Path.join(@iana, "*.csv")),
        [block] <- Regex.scan(~r"(?<![\w.:])[0-9a-f]+[.:][0-9a-f.:]*/\d+", File.read!(file)),
        do: block(block)
  end

  # {number, prefix length, width}
  defp block(text) do
    [address, length] = String.split(text, "/")
    {number, width} = number(address)
    {number, String.to_integer(length), width}
  end

  defp around({first, length, width}) do
    last = first + (1 <<< (width - length)) - 1
    numbers = [first - 1, first, first + 1, div(first + last, 2), last - 1, last, last + 1]
    for number <- numbers, number in 0..((1 <<< width) - 1), do: {number, width}
  end

  # v4-mapped, v4-compatible, v4-translated, NAT64 and NAT64 with a local prefix, 6to4,
  # Teredo (server and client), ISATAP in two networks.
  defp embedded(v4) do
    isatap = 0x5EFE <<< 32
    {prefix, 128} = number("2a00:1450::")

    [
      0xFFFF <<< 32 ||| v4,
      v4,
      0xFFFF <<< 48 ||| v4,
      0x0064FF9B <<< 96 ||| v4,
      0x0064FF9B0001 <<< 80 ||| v4,
      0x2002 <<< 112 ||| v4 <<< 80 ||| 1,
      0x20010000 <<< 96 ||| v4 <<< 64 ||| bxor(v4, 0xFFFFFFFF),
      0xFE80 <<< 112 ||| isatap ||| v4,
      prefix ||| isatap ||| v4
    ]
  end

  defp inside?({number, width}, {first, length, width}),
    do: number >>> (width - length) == first >>> (width - length)

  defp inside?(_address, _block_of_the_other_family), do: false

  @carriers [0xFFFF, 0x0064FF9B <<< 64]
  defp carried({number, 128}) when bsr(number, 32) in @carriers,
    do: {number &&& 0xFFFFFFFF, 32}

  defp carried(address), do: address

  defp number(text) do
    {:ok, address} = text |> String.to_charlist() |> :inet.parse_strict_address()
    {part, width} = if tuple_size(address) == 4, do: {8, 32}, else: {16, 128}
    {address |> Tuple.to_list() |> Integer.undigits(1 <<< part), width}
  end

  defp text({number, width}) do
    {part, count} = if width == 32, do: {8, 4}, else: {16, 8}
    parts = for i <- (count - 1)..0, do: number >>> (i * part) &&& (1 <<< part) - 1
    parts |> List.to_tuple() |> :inet.ntoa() |> to_string()
  end
end
