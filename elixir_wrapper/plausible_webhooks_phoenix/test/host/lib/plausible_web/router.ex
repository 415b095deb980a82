defmodule PlausibleWeb.Router do
  @moduledoc false
  use PlausibleWeb, :router

  pipeline :browser do
    plug :accepts, ["html"]
    plug :fetch_session
    plug :protect_from_forgery
    plug :put_secure_browser_headers
    plug PlausibleWeb.AuthPlug
    plug :put_root_layout, html: {PlausibleWeb.LayoutView, :app}
  end

  scope "/api", PlausibleWeb.Api do
    post "/event", ExternalController, :event
  end

  scope "/", PlausibleWeb do
    pipe_through :browser

    get "/:domain/settings/people", SiteController, :settings_people
    get "/:domain/settings/integrations", SiteController, :settings_integrations

    scope private: %{allow_consolidated_views: true} do
      get "/:domain/settings/general", SiteController, :settings_general
      get "/:domain/settings/goals", SiteController, :settings_goals
      get "/:domain/*path", StatsController, :stats
    end
  end
end
