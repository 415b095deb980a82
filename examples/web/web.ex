defmodule Demo.Web do
  @moduledoc """
  Starts the host of the settings page (`Demo.Web.Endpoint`).

      children = [
        {Phoenix.PubSub, name: Demo.PubSub},
        {Plausible.Webhooks, observers: [{Plausible.Webhooks.Updates, pubsub: Demo.PubSub}], ...},
        {Demo.Web, http: [ip: {127, 0, 0, 1}, port: 4000], server: true,
         page: %{instance: Plausible.Webhooks, pubsub: Demo.PubSub, actors: %{"owner" => :system}}}
      ]

  The keys that sign cookies and sessions are generated at each start unless they are given.
  """

  alias Demo.Web.Endpoint

  def child_spec(options),
    do: %{id: __MODULE__, type: :supervisor, start: {__MODULE__, :start_link, [options]}}

  @spec start_link(keyword()) :: Supervisor.on_start()
  def start_link(options) do
    defaults = [
      secret_key_base: random(48),
      live_view: [signing_salt: random(12)],
      pubsub_server: Demo.PubSub,
      adapter: Bandit.PhoenixAdapter,
      check_origin: :conn,
      render_errors: [formats: [html: Demo.Web.Errors], layout: false]
    ]

    # The place where an endpoint reads its configuration.
    Application.put_env(:plausible_webhooks_phoenix, Endpoint, Keyword.merge(defaults, options))
    Endpoint.start_link()
  end

  defp random(bytes), do: bytes |> :crypto.strong_rand_bytes() |> Base.url_encode64()
end
