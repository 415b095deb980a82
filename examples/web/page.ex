defmodule Demo.Web.Page do
  @moduledoc false
  use Phoenix.Controller, formats: []
  use Phoenix.Component

  import Plug.Conn

  def index(conn, _params), do: redirect(conn, to: "/sites/1")

  def site(conn, %{"id" => id} = params) do
    # Each test has its own instance.
    page = conn.private[:demo_page] || endpoint_module(conn).config(:page)
    actor = params["as"] || page.actors |> Map.keys() |> List.first()

    assigns = %{
      conn: conn,
      dark?: params["theme"] == "dark",
      csrf: Plug.CSRFProtection.get_csrf_token(),
      session: %{
        "site_id" => String.to_integer(id),
        "auth" => inspect(Demo.Web.Auth),
        "instance" => inspect(page.instance),
        "pubsub" => inspect(page.pubsub),
        "actor" => actor,
        "copy" => true
      }
    }

    html(conn, assigns |> document() |> Phoenix.HTML.Safe.to_iodata() |> IO.iodata_to_binary())
  end

  defp document(assigns) do
    ~H"""
    <!DOCTYPE html>
    <html lang="en" class={@dark? && "dark"}>
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="csrf-token" content={@csrf} />
        <title>Webhooks · settings</title>
        <link rel="icon" href="/assets/icon.svg" />
        <link rel="stylesheet" href="/assets/webhook_settings.css" />
        <script defer src="/assets/phoenix/phoenix.min.js">
        </script>
        <script defer src="/assets/live_view/phoenix_live_view.min.js">
        </script>
        <script defer src="/assets/page/webhooks_copy.js">
        </script>
        <script defer src="/assets/app.js">
        </script>
      </head>
      <body class="bg-gray-50 dark:bg-gray-950">
        <main class="mx-auto max-w-5xl p-2 sm:p-6">
          <h1 class="px-2 pb-4 text-2xl font-bold text-gray-900 dark:text-gray-100">Site settings</h1>
          <%= live_render(@conn, PlausibleWeb.Live.WebhookSettings, session: @session) %>
        </main>
      </body>
    </html>
    """
  end
end
