defmodule Mix.Tasks.PlausibleWebhooks.Trigger do
  @shortdoc "Sends one signed sample to a URL"
  @moduledoc """
  Sends one signed sample to any URL, and prints the answer and its timings. It needs no
  instance. The exit status is 1 if the answer is not 2xx.

      mix plausible_webhooks.trigger goal.completed --url http://127.0.0.1:4040/

  The types are those of `Plausible.Webhooks.Event.types/0`.

  ## Options

    * `--url URL` - required; local and private addresses are allowed
    * `--secret whsec_...` - default: that of `mix plausible_webhooks.listen`
    * `--domain DOMAIN` - the site's domain in the body, default `example.com`
  """

  use Mix.Task

  alias Plausible.Webhooks.Event
  alias Plausible.Webhooks.Local.{Receiver, Text, Trigger}

  @timings [
    dns: :dns_us,
    connect: :connect_us,
    tls: :tls_us,
    "first byte": :first_byte_us,
    total: :total_us
  ]

  @impl true
  def run(arguments) do
    switches = [url: :string, secret: :string, domain: :string]

    with {options, [type], []} <- OptionParser.parse(arguments, strict: switches),
         {true, url} when is_binary(url) <- {type in Event.types(), options[:url]} do
      secret = options[:secret] || Receiver.kept_secret()
      told(Trigger.send(type, url, secret, options[:domain] || "example.com"))
    else
      _misused ->
        Mix.raise(
          "mix plausible_webhooks.trigger TYPE --url URL, where TYPE is one of " <>
            Enum.join(Event.types(), ", ")
        )
    end
  end

  defp told({:error, reason}), do: Mix.raise("nothing was sent: #{reason}")

  defp told({:ok, delivery, attempt}) do
    timings =
      for {name, key} <- @timings, us = Map.get(attempt, key), do: "#{name} #{us / 1_000} ms"

    Mix.shell().info("#{delivery.type}, #{delivery.id}, #{byte_size(delivery.body)} bytes")
    Mix.shell().info(Text.json(delivery.body))
    result = attempt.status || attempt.error
    Mix.shell().info(Enum.join(["=> #{result}" | timings], ", "))
    if attempt.detail, do: Mix.shell().info(Text.plain(attempt.detail))
    if attempt.response_body != "", do: Mix.shell().info(Text.plain(attempt.response_body))
    if attempt.state != :delivered, do: exit({:shutdown, 1})
  end
end
