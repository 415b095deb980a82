defmodule PlausibleWeb.Endpoint do
  @moduledoc false
  use Phoenix.Endpoint, otp_app: :plausible

  @session [store: :cookie, key: "_plausible", signing_salt: "a salt", same_site: "Lax"]

  socket "/live", Phoenix.LiveView.Socket, websocket: [connect_info: [session: @session]]

  plug Plug.Parsers,
    parsers: [:urlencoded, :json],
    pass: ["*/*"],
    json_decoder: Jason

  plug Plug.Session, @session
  plug PlausibleWeb.Router
end
