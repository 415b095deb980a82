defmodule Plausible.Webhooks.Faults.Names do
  @moduledoc false
  # A DNS server on 127.0.0.1, by UDP and TCP, that lies. Each row has a zone: how questions
  # for A and for AAAA are answered, by default with nothing to tell. An answer is one of:
  #
  #   {:a, addresses}, {:a, addresses, ttl_s}   records of the question's type
  #   {:records, count?, records}  whatever they say, with that count in the header
  #   {:cname, host}          an alias; `host` is below the row's name
  #   {:code, number}         a response code
  #   {:after, ms, answer}
  #   {:truncated, answer}    by UDP cut, by TCP whole
  #   {:turns, [answer]}      one after the other; the last one stays
  #   {:raw, fun}             packets, made of the question
  #   :silent
  #
  # Names below the row's name have the same answers, unless the zone has one for the label.

  alias Plausible.Webhooks.Faults.Wire

  @flags 0x8180
  @pointer 0xC00C
  @a 1
  @cname 5
  @aaaa 28

  def start do
    table = :ets.new(__MODULE__, [:public, read_concurrency: true])
    {udp, port} = open()
    {:ok, listener} = :gen_tcp.listen(port, listen_options())
    # A process each, which ends with the one that started it.
    udp_server = spawn_link(fn -> receive(do: (:go -> by_udp(udp, table))) end)
    :ok = :gen_udp.controlling_process(udp, udp_server)
    send(udp_server, :go)
    spawn_link(fn -> by_tcp(listener, table) end)
    %{port: port, table: table}
  end

  # The same port by UDP and by TCP.
  defp open do
    {:ok, udp} = :gen_udp.open(0, [:binary, ip: {127, 0, 0, 1}, active: false, recbuf: 1_048_576])

    {:ok, port} = :inet.port(udp)

    case :gen_tcp.listen(port, listen_options()) do
      {:ok, listener} ->
        :gen_tcp.close(listener)
        {udp, port}

      {:error, :eaddrinuse} ->
        open()
    end
  end

  defp listen_options,
    do: [:binary, ip: {127, 0, 0, 1}, active: false, packet: 2, reuseaddr: true]

  @doc "The name of the row."
  def add(names, kind, zone) do
    host = "n#{:erlang.phash2(kind)}.faults.example"
    :ets.insert(names.table, {host, Map.new(zone), :counters.new(1, [])})
    host
  end

  defp by_udp(socket, table) do
    with {:ok, {ip, port, packet}} <- :gen_udp.recv(socket, 0) do
      spawn(fn ->
        for packet <- answer(packet, table, :udp), do: :gen_udp.send(socket, ip, port, packet)
      end)

      by_udp(socket, table)
    end
  end

  defp by_tcp(listener, table) do
    with {:ok, socket} <- :gen_tcp.accept(listener) do
      Wire.hand_over(socket, fn -> each_by_tcp(socket, table) end)
      by_tcp(listener, table)
    end
  end

  defp each_by_tcp(socket, table) do
    with {:ok, packet} <- :gen_tcp.recv(socket, 0, 30_000) do
      for packet <- answer(packet, table, :tcp), do: :gen_tcp.send(socket, packet)
      each_by_tcp(socket, table)
    end
  end

  # --- questions

  defp answer(<<id::16, _flags::16, 1::16, _counts::48, rest::binary>>, table, by) do
    {labels, <<type::16, class::16, _more::binary>>} = labels(rest, [])
    size = byte_size(rest) - byte_size(elem(labels(rest, []), 1)) + 4
    question = %{id: id, type: type, by: by, text: binary_part(rest, 0, size), class: class}
    # Some resolvers ask in letters of random case.
    labels = Enum.map(labels, &String.downcase/1)
    {below, own} = Enum.split(labels, -3)

    case :ets.lookup(table, Enum.join(own, ".")) do
      [{host, zone, turns}] ->
        question = Map.merge(question, %{host: host, turns: turns})
        packets(zone[List.first(below)] || zone[kind(type)] || {:records, []}, question)

      [] ->
        packets({:code, 3}, question)
    end
  end

  defp answer(_no_question, _table, _by), do: []

  defp labels(<<0, rest::binary>>, labels), do: {Enum.reverse(labels), rest}

  defp labels(<<size, label::binary-size(size), rest::binary>>, labels),
    do: labels(rest, [label | labels])

  defp kind(@a), do: :a
  defp kind(@aaaa), do: :aaaa
  defp kind(_other), do: :other

  # --- answers

  defp packets(:silent, _question), do: []
  defp packets({:code, code}, question), do: [packet(question, @flags + code, [])]
  defp packets({:a, addresses}, question), do: packets({:a, addresses, 60}, question)

  defp packets({:a, addresses, ttl}, question),
    do: packets({:records, Enum.map(addresses, &record(&1, ttl))}, question)

  defp packets({:records, records}, question), do: [packet(question, @flags, records)]

  defp packets({:records, count, records}, question),
    do: [packet(question, @flags, records, count)]

  defp packets({:cname, label}, question) do
    target = name("#{label}.#{question.host}")
    packets({:records, [resource(@cname, 60, target)]}, question)
  end

  defp packets({:after, ms, answer}, question) do
    Process.sleep(ms)
    packets(answer, question)
  end

  defp packets({:truncated, _answer}, %{by: :udp} = question),
    do: [packet(question, @flags + 0x0200, [])]

  defp packets({:truncated, answer}, question), do: packets(answer, question)

  defp packets({:turns, answers}, question) do
    :counters.add(question.turns, 1, 1)
    turn = min(:counters.get(question.turns, 1), length(answers))
    packets(Enum.at(answers, turn - 1), question)
  end

  defp packets({:raw, fun}, question), do: List.wrap(fun.(question))

  @doc "A packet with an answer to the question."
  def packet(question, flags \\ @flags, records, count \\ nil) do
    IO.iodata_to_binary([
      <<question.id::16, flags::16, 1::16, count || length(records)::16, 0::32>>,
      question.text,
      records
    ])
  end

  def record({_a, _b, _c, _d} = ip, ttl), do: resource(@a, ttl, bytes(ip, 8))
  def record(ip, ttl), do: resource(@aaaa, ttl, bytes(ip, 16))

  defp bytes(ip, bits), do: for(part <- Tuple.to_list(ip), into: "", do: <<part::size(bits)>>)

  @doc "A record of any type with any data, under the question's name."
  def resource(type, ttl, data),
    do: <<@pointer::16, type::16, 1::16, ttl::32, byte_size(data)::16, data::binary>>

  @doc "A name in wire form."
  def name(text) do
    labels = for label <- String.split(text, "."), into: "", do: <<byte_size(label)>> <> label
    labels <> <<0>>
  end
end
