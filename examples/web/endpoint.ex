defmodule Demo.Web.Endpoint do
  @moduledoc """
  A host as small as can be for the settings page: one page for each site, under a
  strict Content-Security-Policy. The demo serves it, and the tests look at it;
  `Demo.Web` starts it.

  `/sites/1` is the page of site 1, as the first of `actors`. In the query: `as`, the
  name of another actor; `theme=dark`.
  """
  use Phoenix.Endpoint, otp_app: :plausible_webhooks_phoenix

  @session [store: :cookie, key: "_demo", signing_salt: "settings", same_site: "Lax"]

  socket("/live", Phoenix.LiveView.Socket, websocket: [connect_info: [session: @session]])

  plug(Plug.Static, at: "/assets/phoenix", from: {:phoenix, "priv/static"})
  plug(Plug.Static, at: "/assets/live_view", from: {:phoenix_live_view, "priv/static"})
  plug(Plug.Static, at: "/assets/page", from: {:plausible_webhooks_phoenix, "priv/static"})
  plug(Plug.Static, at: "/assets", from: Path.expand("static", __DIR__))
  plug(Plug.Session, @session)
  plug(Demo.Web.Router)
end
