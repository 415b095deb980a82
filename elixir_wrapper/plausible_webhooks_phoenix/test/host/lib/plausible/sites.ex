defmodule Plausible.Sites do
  @moduledoc false
  import Ecto.Query

  alias Plausible.{Repo, Site}

  def regular?(%Site{} = site), do: not site.consolidated
  def consolidated?(%Site{} = site), do: site.consolidated

  def site_id_query_filter(%Site{} = site) do
    if consolidated?(site) do
      dynamic([x], x.site_id in ^Plausible.ConsolidatedView.site_ids(site))
    else
      dynamic([x], x.site_id == ^site.id)
    end
  end

  def get_by_domain(domain, _opts \\ []) do
    Repo.get_by(from(s in Site, where: not s.consolidated), domain: domain)
  end
end
