defmodule Plausible.Site.GateKeeper do
  @moduledoc false

  alias Plausible.Repo

  def check(domain) do
    case Plausible.Sites.get_by_domain(domain) do
      nil ->
        {:deny, :not_found}

      site ->
        %{team: team} = site = Repo.preload(site, [:team, :goals])

        if team.accept_traffic_until != nil and
             Date.compare(Date.utc_today(), team.accept_traffic_until) == :gt,
           do: {:deny, :payment_required},
           else: {:allow, site}
    end
  end
end
