defmodule Plausible.Webhooks.Test.AsUser do
  @moduledoc false
  # The functions of Plausible.Webhooks, called on the context's instance (`name`) as its
  # `user` for its `site`: `send_test(context, webhook.id, "webhook.test")`.

  for {name, arity} <- [
        create_webhook: 1,
        list_webhooks: 0,
        get_webhook: 1,
        update_webhook: 2,
        delete_webhook: 1,
        enable_webhook: 1,
        disable_webhook: 1,
        cancel_held: 1,
        reveal_secret: 1,
        rotate_secret: 2,
        send_test: 2,
        deliveries: 2,
        delivery: 1,
        attempts: 1,
        redeliver: 1,
        recover: 2,
        recoverable: 2,
        activity: 0,
        waiting: 1,
        request: 1,
        sample: 2,
        sent: 2
      ] do
    arguments = Macro.generate_arguments(arity, __MODULE__)

    def unquote(name)(%{name: name, user: user, site: site}, unquote_splicing(arguments)),
      do: Plausible.Webhooks.unquote(name)(name, user, site.id, unquote_splicing(arguments))
  end
end
