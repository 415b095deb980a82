defmodule Mix.Tasks.PlausibleWebhooks.Listen do
  @shortdoc "Receives webhooks on this machine and shows them"
  @moduledoc """
  Receives webhooks on a loopback port until ^C. It verifies each POST, prints its headers and
  its body, and answers as told.

      mix plausible_webhooks.listen

  A webhook reaches this port only if its instance allows HTTP and the destination: in
  Plausible `WEBHOOKS_ALLOW_HTTP=true WEBHOOKS_ALLOW=127.0.0.1:4040`. For a first POST,
  `mix plausible_webhooks.trigger` needs no instance.

  ## Options

    * `--port N` - default 4040
    * `--secret whsec_...` - the webhook's secret. By default a secret of this machine's user,
      which stays the same
    * `--status N` - the answer's status, default 200. An invalid signature is answered 401
    * `--delay MS` - waits before the answer
    * `--retry-after SECONDS` - adds the header `Retry-After`
  """

  use Mix.Task

  alias Plausible.Webhooks.Local.{Http, Receiver, Text}
  alias Plausible.Webhooks.Native

  @switches [
    port: :integer,
    secret: :string,
    status: :integer,
    delay: :integer,
    retry_after: :integer
  ]

  @impl true
  def run(arguments) do
    start(arguments)
    Process.sleep(:infinity)
  end

  @doc false
  def start(arguments) do
    {options, rest, wrong} = OptionParser.parse(arguments, strict: @switches)
    if rest != [] or wrong != [], do: Mix.raise("see mix help plausible_webhooks.listen")
    secret = options[:secret] || Receiver.kept_secret()

    unless match?({:ok, _}, Native.sign([secret], "msg_1", 0, "")),
      do: Mix.raise("--secret is not a secret (whsec_...)")

    answer = &answer(&1, options)
    port = options[:port] || 4040

    case Receiver.start_link(port: port, secret: secret, answer: answer) do
      {:ok, receiver} ->
        Mix.shell().info("listening on http://127.0.0.1:#{Http.port(receiver)}")
        Mix.shell().info("secret: #{secret}")
        receiver

      {:error, reason} ->
        Mix.raise("cannot listen on port #{port}: #{:inet.format_error(reason)}")
    end
  end

  defp answer(request, options) do
    if delay = options[:delay], do: Process.sleep(delay)
    status = if request.refused, do: 401, else: options[:status] || 200
    Mix.shell().info(shown(request, status))
    retry_after = options[:retry_after]
    {status, if(retry_after, do: [{"retry-after", "#{retry_after}"}], else: []), ""}
  end

  defp shown(request, status) do
    type =
      case Native.decode(request.body) do
        {:ok, %{"type" => type}} when is_binary(type) -> Text.plain(type)
        _other -> "no event"
      end

    {colour, verdict} =
      if request.refused, do: {:red, "refused: #{request.refused}"}, else: {:green, "verified"}

    IO.ANSI.format([
      ["\n", :bright, type, :reset, "  ", colour, verdict, :reset, ", answered #{status}\n"],
      Text.request(request.path, request.headers, request.body)
    ])
  end
end
