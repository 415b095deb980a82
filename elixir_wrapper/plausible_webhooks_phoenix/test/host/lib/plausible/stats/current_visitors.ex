defmodule Plausible.Stats.CurrentVisitors do
  @moduledoc false
  import Ecto.Query

  def current_visitors(site, seconds \\ 300) do
    since =
      NaiveDateTime.utc_now() |> NaiveDateTime.add(-seconds) |> NaiveDateTime.truncate(:second)

    Plausible.ClickhouseRepo.one(
      from e in "events_v2",
        where: ^Plausible.Sites.site_id_query_filter(site),
        where: e.timestamp >= ^since,
        where: e.name != "engagement",
        select: fragment("uniq(?)", e.user_id)
    )
  end
end

defmodule Plausible.Stats.Clickhouse do
  @moduledoc false
  alias Plausible.Stats.CurrentVisitors

  def current_visitors(site), do: CurrentVisitors.current_visitors(site)
  def current_visitors_12h(site), do: CurrentVisitors.current_visitors(site, 12 * 3_600)
end
