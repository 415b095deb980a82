defmodule PlausibleWeb.SiteController do
  @moduledoc false
  use PlausibleWeb, :controller
  use Plausible.Repo

  plug(
    PlausibleWeb.Plugs.AuthorizeSiteAccess,
    [:owner, :admin, :editor, :super_admin]
  )

  plug :put_view, html: PlausibleWeb.SiteView

  def settings_general(conn, _params) do
    conn
    |> render("settings_general.html",
      site: conn.assigns.site,
      dogfood_page_path: "/:dashboard/settings/general",
      layout: {PlausibleWeb.LayoutView, "site_settings.html"}
    )
  end

  def settings_people(conn, _params) do
    conn
    |> render("settings_people.html",
      site: conn.assigns.site,
      dogfood_page_path: "/:dashboard/settings/people",
      layout: {PlausibleWeb.LayoutView, "site_settings.html"}
    )
  end

  def settings_goals(conn, _params) do
    conn
    |> render("settings_goals.html",
      site: conn.assigns.site,
      dogfood_page_path: "/:dashboard/settings/goals",
      connect_live_socket: true,
      layout: {PlausibleWeb.LayoutView, "site_settings.html"}
    )
  end

  def settings_integrations(conn, _params) do
    conn
    |> render("settings_integrations.html",
      site: conn.assigns.site,
      dogfood_page_path: "/:dashboard/settings/integrations",
      connect_live_socket: true,
      layout: {PlausibleWeb.LayoutView, "site_settings.html"}
    )
  end
end

defmodule PlausibleWeb.StatsController do
  @moduledoc false
  use PlausibleWeb, :controller

  def stats(conn, %{"domain" => domain}), do: text(conn, "the dashboard of #{domain}")
end
