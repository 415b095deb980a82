defmodule Plausible.Webhooks.Store.SQLite.Activity do
  @moduledoc false
  # What became of a site's deliveries lately: figures that are looked at often.
  #
  # No index leads from a webhook to its deliveries (see Schema). What has finished is
  # counted along the index of the end, which holds those of all sites: one file
  # serves few. The newest of each webhook is looked for along the site's. Both walks
  # go in slices, each a statement of its own, so that nobody else waits for long, and
  # end after `@walk_rows_max` rows or `@walk_ms_max`.

  alias Plausible.Webhooks.Store.SQLite.{Connection, Deliveries, Rows}

  @slice 5_000
  @walk_rows_max 200_000
  @walk_ms_max 1_000
  @hour_ms 3_600_000
  @waiting_max 10_000
  # Entries of the index of what waits that are looked at: some ten milliseconds.
  @waiting_walk_max 200_000

  @id [{"id", :text}]
  # ?1 and ?2; what has no number of its own comes behind.
  @given "WITH given AS MATERIALIZED (#{Rows.select(@id)})"
  @states %{2 => :delivered, 3 => :failed, 4 => :cancelled}

  def activity(_handle, _site_id, [], _since_ms), do: {:ok, %{}}

  def activity(handle, site_id, ids, since_ms) do
    with {:ok, finished, complete?} <- finished(handle, ids, since_ms),
         {:ok, newest, _complete?} <- newest(handle, site_id, ids) do
      {:ok,
       Map.new(ids, fn id ->
         {id, %{finished: finished[id] || %{}, complete?: complete?, last: newest[id]}}
       end)}
    end
  end

  # --- what has finished

  defp finished(handle, ids, since_ms) do
    way = %{
      index: "deliveries_finished",
      time: "finished_at_ms",
      # The first is what makes the index one of these rows.
      range: [{"finished_at_ms IS NOT NULL", []}, {"finished_at_ms >= ?", [since_ms]}]
    }

    walk(handle, way, %{}, fn found, slice ->
      {conditions, params} = conjunction(slice)

      sql = """
      #{@given}
      SELECT webhook_id, finished_at_ms / #{@hour_ms} * #{@hour_ms}, state, count(*)
      FROM deliveries INDEXED BY deliveries_finished
      WHERE #{conditions} AND webhook_id IN (SELECT id FROM given) GROUP BY 1, 2, 3
      """

      with {:ok, rows} <- read(handle, sql, packed(ids) ++ params),
           do: {:ok, Enum.reduce(rows, found, &add/2)}
    end)
  end

  defp add({id, hour_ms, state, count}, found) do
    key = {hour_ms, Map.fetch!(@states, state)}
    Map.update(found, id, %{key => count}, &Map.update(&1, key, count, fn n -> n + count end))
  end

  # --- the newest of each

  defp newest(handle, site_id, ids) do
    way = %{index: "deliveries_site", time: "created_at_ms", range: [{"site_id = ?", [site_id]}]}

    walk(handle, way, %{}, fn found, slice ->
      {conditions, params} = conjunction(slice)

      # By seq once more: what is sorted should not be wide.
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

      missing = Enum.reject(ids, &is_map_key(found, &1))

      with {:ok, rows} <- read(handle, sql, packed(missing) ++ params) do
        found = for row <- rows, into: found, do: {elem(row, 1), Deliveries.delivery(row)}
        if map_size(found) == length(ids), do: {:done, found}, else: {:ok, found}
      end
    end)
  end

  # --- walking, newest first

  # What was found, and whether the walk has seen all.
  defp walk(handle, way, found, fun) do
    deadline_ms = System.monotonic_time(:millisecond) + @walk_ms_max
    walk(handle, way, nil, {@walk_rows_max, deadline_ms}, found, fun)
  end

  defp walk(handle, way, place, {rows, deadline_ms}, found, fun) do
    range = beyond(way, place)

    with {:ok, slice_end} <- slice_end(handle, way, range),
         {:ok, found} <- fun.(found, up_to(way, slice_end) ++ range) do
      cond do
        slice_end == nil ->
          {:ok, found, true}

        rows <= @slice or System.monotonic_time(:millisecond) >= deadline_ms ->
          {:ok, found, false}

        true ->
          walk(handle, way, slice_end, {rows - @slice, deadline_ms}, found, fun)
      end
    else
      {:done, found} -> {:ok, found, true}
      {:error, _reason} = error -> error
    end
  end

  defp slice_end(handle, way, range) do
    {conditions, params} = conjunction(range)

    sql = """
    SELECT #{way.time}, seq FROM deliveries INDEXED BY #{way.index} WHERE #{conditions}
    ORDER BY #{way.time} DESC, seq DESC LIMIT 1 OFFSET #{@slice - 1}
    """

    with {:ok, rows} <- read(handle, sql, params), do: {:ok, List.first(rows)}
  end

  defp beyond(way, nil), do: way.range
  defp beyond(way, {ms, seq}), do: [{"(#{way.time}, seq) < (?, ?)", [ms, seq]} | way.range]

  defp up_to(_way, nil), do: []
  defp up_to(way, {ms, seq}), do: [{"(#{way.time}, seq) >= (?, ?)", [ms, seq]}]

  defp conjunction(conditions) do
    {sql, params} = Enum.unzip(conditions)
    {Enum.join(sql, " AND "), Enum.concat(params)}
  end

  # --- what waits

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
