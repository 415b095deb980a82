defmodule Plausible.ConsolidatedView do
  @moduledoc false
  # All sites of a team seen as one, which is a row of the sites itself.
  import Ecto.Query

  alias Plausible.{Repo, Site}

  def site_ids(view) do
    Repo.all(
      from s in Site, where: s.team_id == ^view.team_id and not s.consolidated, select: s.id
    )
  end

  def ok_to_display?(team) do
    Repo.aggregate(
      from(s in Site, where: s.team_id == ^team.id and not s.consolidated),
      :count
    ) > 1
  end
end
