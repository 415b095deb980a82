defmodule Demo.Http do
  @moduledoc """
  A small HTTP/1.1 server on a loopback port. It hands the path, headers and body of each
  request to a function and sends back the status and text that the function returns.

      {Demo.Http, name: Demo.Ingestion, handle: fn _path, _headers, body -> {202, body} end}
      port = Demo.Http.port(Demo.Ingestion)

  `:port` is 0 by default: any free port.
  """

  use GenServer

  @body_bytes_max 1_048_576

  @type handle ::
          (path :: String.t(), headers :: map(), body :: binary() ->
             {status :: pos_integer(), text :: String.t()})

  def child_spec(options),
    do: %{id: options[:name] || __MODULE__, start: {__MODULE__, :start_link, [options]}}

  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(options),
    do: GenServer.start_link(__MODULE__, options, Keyword.take(options, [:name]))

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
         {:ok, headers} <- headers(socket, %{}),
         {:ok, body} <- body(socket, Integer.parse(headers["content-length"] || "0")) do
      {status, text} = handle.(path, headers, body)
      answer = "HTTP/1.1 #{status} Answer\r\ncontent-length: #{byte_size(text)}\r\n\r\n#{text}"
      :ok = :inet.setopts(socket, packet: :http_bin)
      if :gen_tcp.send(socket, answer) == :ok, do: serve(socket, handle)
    else
      _closed_or_not_http -> :gen_tcp.close(socket)
    end
  end

  defp headers(socket, headers) do
    case :gen_tcp.recv(socket, 0, 10_000) do
      {:ok, {:http_header, _, name, _, value}} ->
        headers(socket, Map.put(headers, String.downcase(to_string(name)), value))

      {:ok, :http_eoh} ->
        {:ok, headers}

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
