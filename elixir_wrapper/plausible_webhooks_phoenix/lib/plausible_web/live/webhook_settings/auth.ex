defmodule PlausibleWeb.Live.WebhookSettings.Auth do
  @moduledoc """
  Tells who looks at the settings page. The session of `live_render`, which is signed, names
  the module:

      defmodule MyApp.WebhooksAuth do
        @behaviour PlausibleWeb.Live.WebhookSettings.Auth

        @impl true
        def actor(%{"user_token" => token}, _socket), do: MyApp.Accounts.user_by_token(token)
        def actor(_session, _socket), do: :error
      end

      live_render(conn, PlausibleWeb.Live.WebhookSettings,
        session: %{
          "site_id" => site.id,
          "auth" => inspect(MyApp.WebhooksAuth),
          "user_token" => get_session(conn, :user_token)
        }
      )
  """

  @doc """
  Returns the actor from the session of the page: that of `live_render`, merged over the
  host's session where the socket passes it on. Called at every mount, connected and not.
  `c:Plausible.Webhooks.Host.can?/4` says what the actor may do. On `:error` the page
  answers 404.
  """
  @callback actor(session :: map(), socket :: struct()) ::
              {:ok, Plausible.Webhooks.Host.actor()} | :error
end
