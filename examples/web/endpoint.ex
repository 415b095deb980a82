defmodule Demo.Web.Endpoint do
  @moduledoc """
  A minimal host for the settings page: one page per site, under a strict
  Content-Security-Policy. The demo and the tests use it; `Demo.Web` starts it.

  `/sites/1/webhooks` is the page of site 1, seen by the first of `actors`. In the query, `as` names
  another actor, and `theme=dark` chooses the dark theme.
  """
  use Phoenix.Endpoint, otp_app: :plausible_webhooks_phoenix

  @session [store: :cookie, key: "_demo", signing_salt: "settings", same_site: "Lax"]

  socket("/live", Phoenix.LiveView.Socket, websocket: [connect_info: [session: @session]])

  plug(Plug.Static, at: "/assets/phoenix", from: {:phoenix, "priv/static"})
  plug(Plug.Static, at: "/assets/live_view", from: {:phoenix_live_view, "priv/static"})
  plug(Plug.Static, at: "/assets/phoenix_html", from: {:phoenix_html, "priv/static"})
  plug(Plug.Static, at: "/assets/page", from: {:plausible_webhooks_phoenix, "priv/static"})
  plug(Plug.Static, at: "/assets", from: Path.expand("static", __DIR__))
  plug(PlausibleWeb.WebhookTestAddress)
  plug(Plug.Session, @session)
  plug(Demo.Web.Router)
end
