defmodule PlausibleWeb.Live.WebhookSettings.Auth do
  @moduledoc """
  Says who looks at the settings page. Named in the session of the `live_render`,
  which is signed:

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
  Who it is, from the session of the page (that of `live_render`, over that of the
  host, where the socket hands it on). Asked at every mount, connected and not. What
  they may do is asked of `c:Plausible.Webhooks.Host.can?/4` on every event. `:error`:
  nobody, who finds nothing.
  """
  @callback actor(session :: map(), socket :: struct()) ::
              {:ok, Plausible.Webhooks.Host.actor()} | :error
end
