defmodule Plausible.Props do
  @moduledoc false
  # The custom properties that a site shows: those of Plausible's own scripts always,
  # others as plan and owner have it.

  alias Plausible.Billing.Feature

  @own ~w(url path search_query)

  def allowed_for(site, _opts \\ []) do
    %{team: team} = site = Plausible.Repo.preload(site, :team)

    case {Feature.Props.check_availability(team), site.allowed_event_props} do
      {:ok, nil} -> :all
      {:ok, chosen} -> @own ++ chosen
      {{:error, :upgrade_required}, _chosen} -> @own
    end
  end
end
