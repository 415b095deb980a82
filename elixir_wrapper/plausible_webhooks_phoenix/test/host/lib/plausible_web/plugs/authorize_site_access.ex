defmodule PlausibleWeb.Plugs.AuthorizeSiteAccess do
  @moduledoc false
  import Plug.Conn

  alias Plausible.Teams.Memberships

  def init(roles), do: roles

  def call(conn, roles) do
    user = conn.assigns[:current_user]
    site = Plausible.Repo.get_by(Plausible.Site, domain: conn.path_params["domain"])

    if site && allowed_view?(conn, site) && role(site, user) in roles do
      merge_assigns(conn,
        site: Plausible.Repo.preload(site, [:owners, :team]),
        site_role: role(site, user)
      )
    else
      conn |> put_status(404) |> Phoenix.Controller.text("Not found") |> halt()
    end
  end

  defp allowed_view?(conn, site),
    do: Plausible.Sites.regular?(site) or conn.private[:allow_consolidated_views] == true

  defp role(site, user) do
    case Memberships.site_role(site, user) do
      {:ok, {_member_type, role}} -> role
      _not_a_member -> if Plausible.Auth.is_super_admin?(user), do: :super_admin
    end
  end
end
