defmodule Plausible.Webhooks.Local.Http do
  @moduledoc """
  A small HTTP/1.1 server on a loopback port, for development. It hands the path, headers and
  body of each request to a function and sends back what the function returns.

      {Http, name: MyReceiver, handle: fn _path, _headers, _body -> {202, [], "ok"} end}
      port = Http.port(MyReceiver)

  `:port` is 0 by default: any free port.
  """

  use GenServer

  @body_bytes_max 1_048_576

  @type handle ::
          (path :: String.t(), headers(), body :: binary() ->
             {status :: pos_integer(), headers(), text :: String.t()})
  @typedoc "In the order of the request, the names in lower case."
  @type headers :: [{name :: String.t(), value :: String.t()}]

  @doc false
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(options),
    do: %{id: options[:name] || __MODULE__, start: {__MODULE__, :start_link, [options]}}

  @doc "Starts the server."
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(options),
    do: GenServer.start_link(__MODULE__, options, Keyword.take(options, [:name]))

  @doc "The port that it listens on."
  @spec port(GenServer.server()) :: :inet.port_number()
  def port(server), do: GenServer.call(server, :port)

  @impl true
  def init(options) do
    listen = [
      :binary,
      packet: :http_bin,
      active: false,
      reuseaddr: true,
      nodelay: true,
      backlog: 256,
      ip: {127, 0, 0, 1}
    ]

    with {:ok, listener} <- :gen_tcp.listen(options[:port] || 0, listen) do
      handle = Keyword.fetch!(options, :handle)
      spawn_link(fn -> accept(listener, handle) end)
      {:ok, listener}
    else
      {:error, reason} -> {:stop, reason}
    end
  end

  @impl true
  def handle_call(:port, _from, listener) do
    {:ok, port} = :inet.port(listener)
    {:reply, port, listener}
  end

  defp accept(listener, handle) do
    with {:ok, socket} <- :gen_tcp.accept(listener) do
      # Not linked, so that a request that crashes its handler ends only its own connection.
      pid = spawn(fn -> receive(do: (:go -> serve(socket, handle))) end)
      :ok = :gen_tcp.controlling_process(socket, pid)
      send(pid, :go)
      accept(listener, handle)
    end
  end

  defp serve(socket, handle) do
    with {:ok, {:http_request, _method, {:abs_path, path}, _version}} <-
           :gen_tcp.recv(socket, 0, 60_000),
         {:ok, headers} <- headers(socket, []),
         length = List.keyfind(headers, "content-length", 0, {nil, "0"}),
         {:ok, body} <- body(socket, length |> elem(1) |> Integer.parse()) do
      {status, headers, text} = handle.(path, headers, body)
      headers = for {name, value} <- headers, do: [name, ": ", value, "\r\n"]
      length = Integer.to_string(byte_size(text))
      first = "HTTP/1.1 #{status} Answer\r\ncontent-length: "
      answer = [first, length, "\r\n", headers, "\r\n", text]
      :ok = :inet.setopts(socket, packet: :http_bin)
      if :gen_tcp.send(socket, answer) == :ok, do: serve(socket, handle)
    else
      _closed_or_not_http -> :gen_tcp.close(socket)
    end
  end

  defp headers(socket, headers) do
    case :gen_tcp.recv(socket, 0, 10_000) do
      {:ok, {:http_header, _, name, _, value}} ->
        headers(socket, [{String.downcase(to_string(name)), value} | headers])

      {:ok, :http_eoh} ->
        {:ok, Enum.reverse(headers)}

      other ->
        other
    end
  end

  defp body(_socket, {0, ""}), do: {:ok, ""}

  defp body(socket, {length, ""}) when length in 1..@body_bytes_max do
    :ok = :inet.setopts(socket, packet: :raw)
    :gen_tcp.recv(socket, length, 10_000)
  end

  defp body(_socket, _no_length), do: {:error, :content_length}
end
