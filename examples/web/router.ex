defmodule Demo.Web.Router do
  @moduledoc false
  use Phoenix.Router

  import Phoenix.LiveView.Router, only: [fetch_live_flash: 2]

  pipeline :browser do
    plug(:fetch_query_params)
    plug(:fetch_session)
    plug(:fetch_live_flash)
    plug(:protect_from_forgery)

    plug(:put_secure_browser_headers, %{
      "content-security-policy" =>
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " <>
          "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    })
  end

  scope "/" do
    pipe_through(:browser)
    get("/", Demo.Web.Page, :index)
    get("/sites/:id/webhooks/*view", Demo.Web.Page, :webhooks)
  end
end
