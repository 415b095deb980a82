defmodule Plausible.Webhooks.Test.CuttingProxy do
  @moduledoc false
  # Between a Repo and PostgreSQL, to cut a connection at a chosen moment.
  #
  #     {proxy, connect} = CuttingProxy.start!(cluster)
  #     CuttingProxy.cut(proxy, {:answer, "INSERT"})
  #
  # Moments: `:question`, before anything more of the client reaches the server;
  # `{:answer, tag}`, when the server has done, and committed, what it answers with a
  # command tag that begins like this: the client never hears of it. Only the next
  # such moment of one connection is cut.

  use GenServer

  alias Plausible.Webhooks.Test.Postgres

  @doc "Starts it, linked; it and the options of a Repo."
  def start!(cluster) do
    {:ok, proxy} = GenServer.start_link(__MODULE__, Postgres.socket(cluster))
    port = GenServer.call(proxy, :port)

    connect =
      cluster
      |> Postgres.connect()
      |> Keyword.delete(:socket_dir)
      |> Keyword.merge(hostname: "127.0.0.1", port: port)

    {proxy, connect}
  end

  def cut(proxy, moment), do: GenServer.call(proxy, {:cut, moment})

  @doc "How many connections were cut so far."
  def cuts(proxy), do: GenServer.call(proxy, :cuts)

  @impl true
  def init(socket) do
    {:ok, listen} = :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}])
    {:ok, port} = :inet.port(listen)
    proxy = self()
    spawn_link(fn -> accept(listen, socket, proxy) end)
    {:ok, %{port: port, moment: nil, cuts: 0}}
  end

  @impl true
  def handle_call(:port, _from, state), do: {:reply, state.port, state}
  def handle_call(:cuts, _from, state), do: {:reply, state.cuts, state}
  def handle_call({:cut, moment}, _from, state), do: {:reply, :ok, %{state | moment: moment}}

  # Asked by a connection: is it now?
  def handle_call({:now?, :question}, _from, %{moment: :question} = state),
    do: {:reply, true, %{state | moment: nil, cuts: state.cuts + 1}}

  def handle_call({:now?, tag}, _from, %{moment: {:answer, wanted}} = state)
      when is_binary(tag) do
    if String.starts_with?(tag, wanted),
      do: {:reply, true, %{state | moment: nil, cuts: state.cuts + 1}},
      else: {:reply, false, state}
  end

  def handle_call({:now?, _what}, _from, state), do: {:reply, false, state}

  # --- a connection

  defp accept(listen, socket, proxy) do
    {:ok, client} = :gen_tcp.accept(listen)

    relay =
      spawn(fn ->
        receive do: (:go -> :ok)
        {:ok, server} = :gen_tcp.connect({:local, socket}, 0, [:binary, active: true])
        :ok = :inet.setopts(client, active: true)
        relay(%{client: client, server: server, proxy: proxy, rest: "", lost?: false})
      end)

    :ok = :gen_tcp.controlling_process(client, relay)
    send(relay, :go)
    accept(listen, socket, proxy)
  end

  defp relay(%{client: client, server: server} = state) do
    receive do
      {:tcp, ^client, data} ->
        if GenServer.call(state.proxy, {:now?, :question}) do
          close(state)
        else
          :ok = :gen_tcp.send(server, data)
          relay(state)
        end

      {:tcp, ^server, data} ->
        answer(%{state | rest: state.rest <> data})

      {:tcp_closed, _socket} ->
        close(state)
    end
  end

  defp close(state) do
    :gen_tcp.close(state.client)
    :gen_tcp.close(state.server)
  end

  # Message by message. What is committed is told by ReadyForQuery alone: the command
  # tag before it may leave the server earlier.
  defp answer(%{rest: <<type, size::32, _rest::binary>> = data} = state)
       when byte_size(data) > size do
    <<message::binary-size(size + 1), rest::binary>> = data
    state = %{state | rest: rest}

    cond do
      type == ?C and not state.lost? and GenServer.call(state.proxy, {:now?, tag(message)}) ->
        answer(%{state | lost?: true})

      state.lost? and type == ?Z ->
        close(state)

      state.lost? ->
        answer(state)

      true ->
        _ = :gen_tcp.send(state.client, message)
        answer(state)
    end
  end

  defp answer(state), do: relay(state)

  defp tag(<<?C, _size::32, tag::binary>>), do: tag
end
