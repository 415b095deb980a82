defmodule PlausibleWeb.Live.GoalSettings do
  @moduledoc false
  use Phoenix.LiveView

  def mount(_params, %{"site_id" => site_id}, socket) do
    site = Plausible.Repo.get!(Plausible.Site, site_id)
    {:ok, assign(socket, goals: Plausible.Goals.for_site(site))}
  end

  def render(assigns) do
    ~H"""
    <ul>
      <li :for={goal <- @goals}><%= goal.display_name %></li>
    </ul>
    """
  end
end
