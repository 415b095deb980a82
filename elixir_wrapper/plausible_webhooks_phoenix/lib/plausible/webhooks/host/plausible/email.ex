defmodule Plausible.Webhooks.Host.Plausible.Email do
  @moduledoc false
  # The e-mail to an owner of a site, by Plausible's mailer. Plain text: the name of a webhook is
  # user input.

  alias Plausible.Webhooks.Webhook

  # Plausible compiles after this package.
  @compile {:no_warn_undefined, [Plausible.Mailer, PlausibleWeb.Email]}

  @spec webhook_disabled(String.t(), map(), Webhook.t(), Webhook.disabled_reason(), String.t()) ::
          term()
  def webhook_disabled(address, site, webhook, reason, link) do
    email = PlausibleWeb.Email.base_email(%{layout: nil})

    Plausible.Mailer.send(%{
      email
      | to: address,
        subject: "A webhook of #{site.domain} was switched off",
        text_body: """
        We have switched off the webhook #{named(webhook)} to #{Webhook.destination(webhook)} of #{site.domain}.

        #{why(reason)}

        Its events are kept. Once the endpoint works again, a successful test switches the webhook on, and you can send again what it missed:
        #{link}
        """
    })
  end

  defp named(%{name: ""} = webhook), do: webhook.id
  defp named(%{name: name}), do: inspect(name)

  defp why(:gone), do: "It answered 410 Gone, which asks us to stop."
  defp why(:costly), do: "Its answers took too much of our server's processor time."
  defp why(_failing), do: "Every attempt of the last days has failed."
end
