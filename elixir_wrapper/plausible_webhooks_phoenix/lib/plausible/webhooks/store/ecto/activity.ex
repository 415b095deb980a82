defmodule Plausible.Webhooks.Store.Ecto.Activity do
  @moduledoc false
  # How the deliveries of webhooks ended lately: figures that the page reads often.
  #
  # A delivery that finished in a window was created in it or up to an hour before, and is
  # found along the webhook's index; or it finished late, after more than an hour (usually
  # by a recovery), and is in an index of its own. This avoids an index of all ends by
  # webhook, which every attempt would pay for.
  #
  # Both are read hour by hour, up to a limit per hour, so that a flooded hour does not hide
  # the others.
  #
  # The webhooks of a site share the limit of one call: first each gets a little of every
  # hour, then those that have more share the rest.

  alias Plausible.Webhooks.{Store, Webhook}
  alias Plausible.Webhooks.Migrations.V01
  alias Plausible.Webhooks.Store.Columns
  alias Plausible.Webhooks.Store.Ecto.{Database, Rows, SQL, Text}

  @first_rows_max 400
  @rows_max 10_000
  @all_rows_max 250_000
  @waiting_max 10_000
  @waiting_walk_max 50_000
  @hour_ms 3_600_000
  @hours 24

  @late V01.late()

  # Rows that do not count, tests among them, have no hour; they show whether the limit was reached. The last
  # hour has no end, because clocks may differ.
  @finished """
  SELECT given.id, hour, state, sum(n)::bigint, bool_or(looked_at >= $3)
  FROM unnest($1::text[]) AS given (id)
  CROSS JOIN (
    SELECT $2::bigint + n * #{@hour_ms} AS from_ms,
      CASE WHEN n = #{@hours - 1} THEN 9223372036854775807
        ELSE $2::bigint + (n + 1) * #{@hour_ms} - 1 END AS to_ms
    FROM generate_series(-1, #{@hours - 1}) AS hours (n)) AS hours
  CROSS JOIN LATERAL (
    SELECT CASE WHEN finished_at_ms >= $2 AND NOT late AND retry
        THEN finished_at_ms / #{@hour_ms} END AS hour,
      state, count(*) AS n, sum(count(*)) OVER () AS looked_at
    FROM (
      SELECT finished_at_ms, state, retry, (#{@late}) AS late FROM PREFIX.webhook_deliveries
      WHERE webhook_id = given.id AND created_at_ms BETWEEN from_ms AND to_ms
      ORDER BY created_at_ms, seq LIMIT $3) AS created
    GROUP BY 1, 2
    UNION ALL
    SELECT finished_at_ms / #{@hour_ms}, state, count(*), sum(count(*)) OVER ()
    FROM (
      SELECT finished_at_ms, state FROM PREFIX.webhook_deliveries
      WHERE webhook_id = given.id AND #{@late} AND from_ms >= $2
        AND finished_at_ms / #{@hour_ms} BETWEEN from_ms / #{@hour_ms} AND to_ms / #{@hour_ms}
      ORDER BY finished_at_ms / #{@hour_ms} LIMIT $3) AS late
    GROUP BY 1, 2) AS counted
  GROUP BY 1, 2, 3
  """

  # Not along the site's index, where the rows of a quiet webhook are far behind the others.
  @newest """
  SELECT newest.* FROM unnest($1::text[]) AS given (id)
  CROSS JOIN LATERAL (
    SELECT #{SQL.names(Rows.delivery())} FROM PREFIX.webhook_deliveries
    WHERE webhook_id = given.id AND site_id + 0 = $2
    ORDER BY created_at_ms DESC, seq DESC LIMIT 1) AS newest
  """

  @spec activity(Store.Ecto.handle(), integer(), [Webhook.id()], integer()) ::
          {:ok, %{Webhook.id() => Store.activity()}} | {:error, term()}
  def activity(store, site_id, ids, since_ms) do
    by_index(store, fn ->
      first = finished(store, ids, since_ms, @first_rows_max)
      figures = Map.merge(first, more(store, first, since_ms))
      rows = Database.query!(store, nil, @newest, [encoded(ids), site_id])
      newest = Map.new(Enum.map(rows, &Rows.to_delivery/1), &{&1.webhook_id, &1})
      Map.new(ids, &{&1, Map.put(figures[&1], :last, newest[&1])})
    end)
  end

  # A limit bounds the rows read only along an index in its order. When a webhook has a
  # large part of all rows, the planner prefers to read and sort all of them, or to build a
  # bitmap before the first row. So each walk is in the order of the one index that is
  # meant, and the other ways are switched off. The host may be in a transaction of its own,
  # and gets its settings back.
  @settings ["enable_bitmapscan", "enable_seqscan", "enable_sort"]
  @set "SELECT current_setting(name), set_config(name, value, true) " <>
         "FROM unnest($1::text[], $2::text[]) AS given (name, value)"

  defp by_index(store, fun) do
    Database.transaction(store, fn ->
      off = Enum.map(@settings, fn _name -> "off" end)
      before = for [value, _off] <- Database.query!(store, nil, @set, [@settings, off]), do: value
      result = fun.()
      Database.query!(store, nil, @set, [@settings, before])
      result
    end)
  end

  defp more(store, first, since_ms) do
    ids = for {id, %{complete?: false}} <- first, do: id
    rows_max = min(@rows_max, div(@all_rows_max, (@hours + 1) * max(length(ids), 1)))

    if ids != [] and rows_max > @first_rows_max,
      do: finished(store, ids, since_ms, rows_max),
      else: %{}
  end

  defp finished(store, ids, since_ms, rows_max) do
    rows = Database.query!(store, nil, @finished, [encoded(ids), since_ms, rows_max])
    by_id = Enum.group_by(rows, &Text.decode(hd(&1)), &tl/1)
    Map.new(ids, &{&1, figures(Map.get(by_id, &1, []))})
  end

  defp figures(rows) do
    finished =
      for [hour, state, n, _more?] <- rows, hour != nil, into: %{} do
        {{hour * @hour_ms, Columns.state_name(state)}, n}
      end

    more? = Enum.any?(rows, fn [_hour, _state, _n, more?] -> more? end)
    %{finished: finished, complete?: not more?}
  end

  # --- waiting deliveries

  @waiting """
  SELECT given.id, waiting, walked FROM unnest($1::text[]) AS given (id)
  CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE state <= 1) AS waiting, count(*) AS walked
    FROM (
      SELECT state FROM PREFIX.webhook_deliveries WHERE webhook_id = given.id AND #{SQL.open()}
      ORDER BY created_at_ms, seq LIMIT #{@waiting_walk_max}) AS open) AS counted
  """

  @spec waiting(Store.Ecto.handle(), [Webhook.id()]) ::
          {:ok, %{Webhook.id() => Store.waiting()}} | {:error, term()}
  def waiting(store, ids) do
    by_index(store, fn ->
      rows = Database.query!(store, nil, @waiting, [encoded(ids)])

      Map.new(rows, fn [id, waiting, walked] ->
        more? = waiting > @waiting_max or walked == @waiting_walk_max
        {Text.decode(id), %{count: min(waiting, @waiting_max), more?: more?}}
      end)
    end)
  end

  defp encoded(ids), do: Enum.map(ids, &Text.encode/1)
end
