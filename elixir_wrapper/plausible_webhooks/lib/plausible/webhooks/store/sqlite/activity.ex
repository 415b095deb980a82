defmodule Plausible.Webhooks.Store.SQLite.Activity do
  @moduledoc false
  # How the deliveries of webhooks ended lately: figures that the page reads often.
  #
  # No index leads from a webhook to its deliveries (see Schema). Finished deliveries are
  # counted along the index of the finishing time, over all sites, up to a limit per hour. The
  # newest delivery of each webhook is searched along the site's index, in slices, up to
  # `@walk_rows_max` rows or `@walk_ms_max`. Each hour and each slice is a statement of its
  # own, so that no other caller waits for long.

  alias Plausible.Webhooks.Store.Columns
  alias Plausible.Webhooks.Store.SQLite.{Connection, Deliveries, Rows}

  @slice 5_000
  @walk_rows_max 100_000
  @walk_ms_max 1_000
  @hour_ms 3_600_000
  @hours 24
  @hour_rows_max 10_000
  @int64_max 9_223_372_036_854_775_807
  @waiting_max 10_000
  # How many entries of the index of waiting deliveries are read: about ten milliseconds.
  @waiting_walk_max 200_000

  @id [{"id", :text}]
  # ?1 and ?2; what has no number of its own comes behind.
  @given "WITH given AS MATERIALIZED (#{Rows.select(@id)})"

  def activity(_handle, _site_id, [], _since_ms), do: {:ok, %{}}

  def activity(handle, site_id, ids, since_ms) do
    with {:ok, finished, complete?} <- finished(handle, ids, since_ms),
         {:ok, newest} <- newest(handle, site_id, ids) do
      {:ok,
       Map.new(ids, fn id ->
         {id, %{finished: finished[id] || %{}, complete?: complete?, last: newest[id]}}
       end)}
    end
  end

  # --- finished deliveries

  defp finished(handle, ids, since_ms) do
    Enum.reduce_while(0..(@hours - 1), {:ok, %{}, true}, fn n, {:ok, found, complete?} ->
      from_ms = since_ms + n * @hour_ms
      # The last hour has no end, because a clock may have been fast.
      to_ms = if n == @hours - 1, do: @int64_max, else: from_ms + @hour_ms - 1

      case hour(handle, ids, from_ms, to_ms) do
        {:ok, counts, looked_at} ->
          found = Enum.reduce(counts, found, &add/2)
          {:cont, {:ok, found, complete? and looked_at < @hour_rows_max}}

        {:error, _reason} = error ->
          {:halt, error}
      end
    end)
  end

  defp hour(handle, ids, from_ms, to_ms) do
    sql = """
    #{@given}
    SELECT CASE WHEN retry AND webhook_id IN (SELECT id FROM given) THEN webhook_id END,
      finished_at_ms / #{@hour_ms} * #{@hour_ms}, state, count(*)
    FROM (
      SELECT webhook_id, finished_at_ms, state, retry FROM deliveries INDEXED BY deliveries_finished
      WHERE finished_at_ms IS NOT NULL AND finished_at_ms BETWEEN ? AND ?
      LIMIT #{@hour_rows_max})
    GROUP BY 1, 2, 3
    """

    with {:ok, rows} <- read(handle, sql, packed(ids) ++ [from_ms, to_ms]) do
      {ours, others} = Enum.split_with(rows, &(elem(&1, 0) != nil))
      {:ok, ours, Enum.sum(for row <- ours ++ others, do: elem(row, 3))}
    end
  end

  defp add({id, hour_ms, state, count}, found) do
    key = {hour_ms, Columns.state_name(state)}
    Map.update(found, id, %{key => count}, &Map.put(&1, key, count))
  end

  # --- the newest of each

  defp newest(handle, site_id, ids) do
    deadline_ms = System.monotonic_time(:millisecond) + @walk_ms_max
    newest(handle, site_id, ids, nil, {@walk_rows_max, deadline_ms}, %{})
  end

  defp newest(handle, site_id, missing, place, {rows, deadline_ms}, found) do
    range = [{"site_id = ?", [site_id]} | beyond(place)]

    with {:ok, slice_end} <- slice_end(handle, range),
         {:ok, newest} <- newest_of(handle, missing, up_to(slice_end) ++ range) do
      found = for row <- newest, into: found, do: {elem(row, 1), Deliveries.delivery(row)}
      missing = Enum.reject(missing, &is_map_key(found, &1))
      late? = rows <= @slice or System.monotonic_time(:millisecond) >= deadline_ms

      if missing == [] or slice_end == nil or late?,
        do: {:ok, found},
        else: newest(handle, site_id, missing, slice_end, {rows - @slice, deadline_ms}, found)
    end
  end

  # By seq once more: what is sorted should not be wide.
  defp newest_of(handle, ids, slice) do
    {conditions, params} = conjunction(slice)

    sql = """
    #{@given}
    SELECT #{Deliveries.columns()} FROM deliveries WHERE seq IN (
      SELECT seq FROM (
        SELECT seq, row_number() OVER (
          PARTITION BY webhook_id ORDER BY created_at_ms DESC, seq DESC) AS n
        FROM deliveries INDEXED BY deliveries_site
        WHERE #{conditions} AND webhook_id IN (SELECT id FROM given))
      WHERE n = 1)
    """

    read(handle, sql, packed(ids) ++ params)
  end

  defp slice_end(handle, range) do
    {conditions, params} = conjunction(range)

    sql = """
    SELECT created_at_ms, seq FROM deliveries INDEXED BY deliveries_site WHERE #{conditions}
    ORDER BY created_at_ms DESC, seq DESC LIMIT 1 OFFSET #{@slice - 1}
    """

    with {:ok, rows} <- read(handle, sql, params), do: {:ok, List.first(rows)}
  end

  defp beyond(nil), do: []
  defp beyond({ms, seq}), do: [{"(created_at_ms, seq) < (?, ?)", [ms, seq]}]

  defp up_to(nil), do: []
  defp up_to({ms, seq}), do: [{"(created_at_ms, seq) >= (?, ?)", [ms, seq]}]

  defp conjunction(conditions) do
    {sql, params} = Enum.unzip(conditions)
    {Enum.join(sql, " AND "), Enum.concat(params)}
  end

  # --- waiting deliveries

  def waiting(_handle, []), do: {:ok, %{}}

  def waiting(handle, ids) do
    walked = """
    SELECT webhook_id FROM deliveries INDEXED BY deliveries_waiting
    WHERE state <= 1 LIMIT #{@waiting_walk_max}
    """

    counted =
      "#{@given} SELECT webhook_id, count(*) FROM (#{walked}) " <>
        "WHERE webhook_id IN (SELECT id FROM given) GROUP BY 1"

    statements = [{"SELECT count(*) FROM (#{walked})", []}, {counted, packed(ids)}]

    with {:ok, [[{all}], counts]} <- Connection.read(handle.connection, statements) do
      counts = Map.new(counts)
      {:ok, Map.new(ids, &{&1, at_most(counts[&1] || 0, all == @waiting_walk_max)})}
    end
  end

  defp at_most(count, more?),
    do: %{count: min(count, @waiting_max), more?: more? or count > @waiting_max}

  # --- helpers

  defp read(handle, sql, params) do
    with {:ok, [rows]} <- Connection.read(handle.connection, [{sql, params}]), do: {:ok, rows}
  end

  # A site has so few webhooks that their ids go with one statement.
  defp packed(ids) do
    [params] = ids |> Enum.map(&[&1]) |> Rows.pack(@id)
    params
  end
end
