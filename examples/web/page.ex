defmodule Demo.Web.Page do
  @moduledoc false
  use Phoenix.Controller, formats: []
  use Phoenix.Component

  import Plug.Conn

  def index(conn, _params), do: redirect(conn, to: "/sites/1/webhooks")

  def webhooks(conn, %{"id" => id} = params) do
    # Each test has its own instance.
    page = conn.private[:demo_page] || endpoint_module(conn).config(:page)
    actor = params["as"] || page.actors |> Map.keys() |> List.first()

    assigns = %{
      conn: conn,
      dark?: theme(conn, params) == "dark",
      csrf: Plug.CSRFProtection.get_csrf_token(),
      session: %{
        "site_id" => String.to_integer(id),
        "auth" => inspect(Demo.Web.Auth),
        "instance" => inspect(page.instance),
        "pubsub" => inspect(page.pubsub),
        "actor" => actor,
        "base_url" => page[:base_url],
        "script" => "host"
      }
    }

    html = assigns |> document() |> Phoenix.HTML.Safe.to_iodata() |> IO.iodata_to_binary()
    conn |> put_resp_cookie("theme", theme(conn, params)) |> html(html)
  end

  # Links between the views do not name it.
  defp theme(conn, params), do: params["theme"] || fetch_cookies(conn).cookies["theme"] || "light"

  defp document(assigns) do
    ~H"""
    <!DOCTYPE html>
    <html lang="en" class={@dark? && "dark"}>
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="csrf-token" content={@csrf} />
        <title>Webhooks</title>
        <link rel="icon" href="/assets/icon.svg" />
        <link rel="stylesheet" href="/assets/webhook_settings.css" />
        <script defer src="/assets/phoenix/phoenix.min.js">
        </script>
        <script defer src="/assets/live_view/phoenix_live_view.min.js">
        </script>
        <script defer src="/assets/phoenix_html/phoenix_html.js">
        </script>
        <script defer src="/assets/page/webhooks_page.js">
        </script>
        <script defer src="/assets/app.js">
        </script>
      </head>
      <body class="bg-gray-50 dark:bg-gray-950">
        <main class="mx-auto max-w-5xl p-2 sm:p-6">
          <h1 class="px-2 pb-4 text-2xl font-bold text-gray-900 dark:text-gray-100">Site settings</h1>
          <%= PlausibleWeb.Live.WebhookSettings.live(@conn, @session) %>
        </main>
      </body>
    </html>
    """
  end
end
