# WEBHOOK_SECRET=whsec_... PORT=3000 elixir receiver.exs
Code.require_file("verify.exs", __DIR__)

defmodule Receiver do
  require Record
  Record.defrecord(:mod, Record.extract(:mod, from_lib: "inets/include/httpd.hrl"))

  # With Plug, keep the raw body with the option :body_reader of Plug.Parsers.
  def unquote(:do)(mod(parsed_header: headers, entity_body: body)) do
    headers = Map.new(headers, fn {name, value} -> {to_string(name), to_string(value)} end)
    body = IO.iodata_to_binary(body)
    id = headers["webhook-id"] || ""

    if accepted?(headers, id, body) do
      # Store the event under its id, and do the work after the answer.
      IO.puts("accepted #{id}")
      {:proceed, response: {204, []}}
    else
      IO.puts("refused #{id}")
      {:proceed, response: {401, []}}
    end
  end

  defp accepted?(headers, id, body) do
    with %{"webhook-timestamp" => timestamp, "webhook-signature" => signatures} <- headers,
         {seconds, ""} <- Integer.parse(timestamp),
         true <- abs(System.system_time(:second) - seconds) <= 300,
         do: Verify.verified?(System.fetch_env!("WEBHOOK_SECRET"), id, timestamp, signatures, body),
         else: (_missing_or_old -> false)
  end
end

{:ok, _} = Application.ensure_all_started(:inets)
port = "PORT" |> System.get_env("3000") |> String.to_integer()
root = String.to_charlist(System.tmp_dir!())

{:ok, _server} =
  :inets.start(:httpd,
    port: port,
    bind_address: {127, 0, 0, 1},
    server_name: [],
    server_root: root,
    document_root: root,
    modules: [Receiver]
  )

IO.puts("listening on http://127.0.0.1:#{port}")
Process.sleep(:infinity)
