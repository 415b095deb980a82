defmodule Plausible.Webhooks.Store.SQLite.Log do
  @moduledoc false
  # The log of a site, page by page, and what of it can be recovered. Walks along the
  # site's index as `Plausible.Webhooks.Store.LogQuery` says.

  alias Plausible.Webhooks.Store.LogQuery
  alias Plausible.Webhooks.Store.SQLite.{Connection, Deliveries}

  # Some ten milliseconds.
  @slice {5_000, 5_000}

  def deliveries(handle, site_id, filters, page) do
    with {:ok, query} <- LogQuery.new(filters, page),
         columns = Deliveries.columns() <> ", created_at_ms, seq",
         walk = walk(site_id, query, :desc, columns),
         # One more than asked for shows whether another page follows.
         {:ok, rows, stopped_at} <- rows(handle, walk, query, query.limit + 1, :bounded) do
      {:ok, LogQuery.page(query, rows, stopped_at, &place_of/1, &Deliveries.delivery/1)}
    end
  end

  def recoverable(handle, webhook_id, since_ms, limit) do
    site = {"SELECT site_id FROM webhooks WHERE id = ?1", [webhook_id]}

    with {:ok, [[{site_id}]]} <- Connection.read(handle.connection, [site]),
         filters = %{webhook_id: webhook_id, states: [:failed, :cancelled], since_ms: since_ms},
         {:ok, query} <- LogQuery.new(filters, %{}),
         walk = walk(site_id, query, :asc, "id"),
         # A test is not sent again.
         {:ok, rows, nil} <- rows(handle, ask(walk, "retry", []), query, limit, :unbounded) do
      {:ok, Enum.map(rows, &elem(&1, 0))}
    else
      {:ok, [[]]} -> {:ok, []}
      {:error, _reason} = error -> error
    end
  end

  defp place_of(row) do
    size = tuple_size(row)
    {elem(row, size - 2), elem(row, size - 1)}
  end

  # --- filters

  # range: what the index narrows down; filters: what is asked of each row of it.
  defp walk(site_id, query, direction, columns) do
    walk = %{
      index: "deliveries_site",
      direction: direction,
      columns: columns,
      range: [{"site_id = ?", [site_id]}],
      filters: []
    }

    Enum.reduce(query.filters, walk, &filter/2)
  end

  defp filter({:webhook_id, id}, walk), do: ask(walk, "webhook_id = ?", [id])
  defp filter({:goal_id, id}, walk), do: ask(walk, "goal_id = ?", [id])
  defp filter({:since_ms, ms}, walk), do: narrow(walk, "created_at_ms >= ?", [ms])
  defp filter({:until_ms, ms}, walk), do: narrow(walk, "created_at_ms < ?", [ms])

  defp filter({:status_class, :none}, walk),
    do: ask(walk, "last_status IS NULL AND attempts > 0", [])

  defp filter({:status_class, class}, walk),
    do: ask(walk, "last_status BETWEEN ? AND ?", [class * 100, class * 100 + 99])

  defp filter({:types, types}, walk),
    do: ask(walk, "type IN (#{Enum.map_join(types, ", ", fn _type -> "?" end)})", types)

  # What went wrong has an index of its own, since that is what people look for.
  defp filter({:states, codes}, walk) do
    walk = ask(walk, "state IN (#{Enum.join(codes, ", ")})", [])

    if Enum.all?(codes, &(&1 >= 3)),
      do: narrow(%{walk | index: "deliveries_failed"}, "state >= 3", []),
      else: walk
  end

  defp narrow(walk, sql, params), do: %{walk | range: [{sql, params} | walk.range]}
  defp ask(walk, sql, params), do: %{walk | filters: [{sql, params} | walk.filters]}

  # --- walking

  defp rows(_handle, _walk, %{nothing?: true}, _wanted, _bounded), do: {:ok, [], nil}

  # Without a filter the limit alone bounds the work.
  defp rows(handle, %{filters: []} = walk, query, wanted, _bounded) do
    with {:ok, rows} <- select(handle, walk, beyond(walk, query.after), wanted),
         do: {:ok, rows, nil}
  end

  defp rows(handle, walk, query, wanted, bounded),
    do: LogQuery.walk(query.after, wanted, @slice, bounded, &slice(handle, walk, &1, &2, &3))

  defp slice(handle, walk, place, wanted, size) do
    range = beyond(walk, place)

    with {:ok, slice_end} <- slice_end(handle, walk, range, size),
         slice = if(slice_end, do: [up_to(walk, slice_end) | range], else: range),
         {:ok, rows} <- select(handle, walk, slice ++ walk.filters, wanted),
         do: {:ok, rows, slice_end}
  end

  defp slice_end(handle, walk, range, size) do
    statement = statement(walk, "created_at_ms, seq", range, "LIMIT 1 OFFSET #{size - 1}")

    with {:ok, [places]} <- Connection.read(handle.connection, [statement]),
         do: {:ok, List.first(places)}
  end

  defp select(handle, walk, conditions, wanted) do
    statement = statement(walk, walk.columns, conditions, "LIMIT #{wanted}")
    with {:ok, [rows]} <- Connection.read(handle.connection, [statement]), do: {:ok, rows}
  end

  defp statement(walk, columns, conditions, limit) do
    {sql, params} = Enum.unzip(conditions)

    {"SELECT #{columns} FROM deliveries INDEXED BY #{walk.index} " <>
       "WHERE #{Enum.join(sql, " AND ")} " <>
       "ORDER BY created_at_ms #{walk.direction}, seq #{walk.direction} #{limit}",
     Enum.concat(params)}
  end

  defp beyond(walk, nil), do: walk.range

  defp beyond(walk, {ms, seq}) do
    past = if walk.direction == :desc, do: "<", else: ">"
    [{"(created_at_ms, seq) #{past} (?, ?)", [ms, seq]} | walk.range]
  end

  defp up_to(walk, {ms, seq}) do
    not_past = if walk.direction == :desc, do: ">=", else: "<="
    {"(created_at_ms, seq) #{not_past} (?, ?)", [ms, seq]}
  end
end
