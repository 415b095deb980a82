defmodule Plausible.Webhooks.Store.SQLite.Log do
  @moduledoc false
  # The log of a site, page by page, and what of it can be recovered.
  #
  # A filter may match nothing among a million rows. The site's deliveries are
  # therefore walked along the index in slices, each a statement of its own: whoever
  # asks for something rare waits, the others do not. A page ends after
  # `@walk_rows_max` rows or `@walk_ms_max` with what was found, and its cursor is
  # where the walk has got to.

  alias Plausible.Webhooks.Store.SQLite.{Connection, Deliveries}

  @scan_slice 5_000
  @walk_rows_max 100_000
  @walk_ms_max 1_000
  @limit_max 200
  @limit_default 50
  @types_max 32
  @int64_max 9_223_372_036_854_775_807

  @type place :: {created_at_ms :: integer(), seq :: integer()}

  def page(handle, site_id, filters, page) do
    with {:ok, limit} <- limit(Map.get(page, :limit, @limit_default)),
         {:ok, after_} <- place(Map.get(page, :after)),
         {:ok, walk} <- walk(site_id, filters, :desc),
         # One more than asked for, to know whether there is a next page.
         walk = %{walk | columns: Deliveries.columns() <> ", created_at_ms, seq"},
         {:ok, rows, stopped_at} <- rows(handle, walk, after_, limit + 1, bounds()) do
      entries = rows |> Enum.take(limit) |> Enum.map(&Deliveries.delivery/1)
      {:ok, %{entries: entries, next: next(rows, limit, stopped_at)}}
    end
  end

  def recoverable(handle, webhook_id, since_ms, limit) do
    site = {"SELECT site_id FROM webhooks WHERE id = ?1", [webhook_id]}

    with {:ok, [[{site_id}]]} <- Connection.read(handle.connection, [site]),
         filters = %{webhook_id: webhook_id, states: [:failed, :cancelled], since_ms: since_ms},
         {:ok, walk} <- walk(site_id, filters, :asc),
         {:ok, rows, nil} <- rows(handle, %{walk | columns: "id"}, nil, limit, :to_the_end) do
      {:ok, Enum.map(rows, &elem(&1, 0))}
    else
      {:ok, [[]]} -> {:ok, []}
      {:error, _reason} = error -> error
    end
  end

  # --- filters

  defp walk(site_id, filters, direction) do
    start = %{
      index: "deliveries_site",
      direction: direction,
      columns: nil,
      # What the index narrows down, and what each row is asked.
      range: [{"site_id = ?", [site_id]}],
      filters: [],
      # An empty choice: no row can match, and no index helps to find none.
      nothing?: false
    }

    Enum.reduce_while(filters, {:ok, start}, fn {key, value}, {:ok, walk} ->
      case filter(key, value, walk) do
        :error -> {:halt, {:error, {:invalid_filter, key}}}
        walk -> {:cont, {:ok, walk}}
      end
    end)
  end

  defp filter(:webhook_id, id, walk) when is_binary(id), do: ask(walk, "webhook_id = ?", [id])

  defp filter(:goal_id, id, walk) when id in -@int64_max..@int64_max,
    do: ask(walk, "goal_id = ?", [id])

  defp filter(:since_ms, ms, walk) when ms in -@int64_max..@int64_max,
    do: narrow(walk, "created_at_ms >= ?", [ms])

  defp filter(:until_ms, ms, walk) when ms in -@int64_max..@int64_max,
    do: narrow(walk, "created_at_ms < ?", [ms])

  defp filter(:status_class, :none, walk),
    do: ask(walk, "last_status IS NULL AND attempts > 0", [])

  defp filter(:status_class, class, walk) when class in 2..5,
    do: ask(walk, "last_status BETWEEN ? AND ?", [class * 100, class * 100 + 99])

  defp filter(key, [], walk) when key in [:types, :states], do: %{walk | nothing?: true}

  defp filter(:types, types, walk) when is_list(types) do
    types = Enum.uniq(types)

    if length(types) <= @types_max and Enum.all?(types, &is_binary/1),
      do: ask(walk, "type IN (#{Enum.map_join(types, ", ", fn _type -> "?" end)})", types),
      else: :error
  end

  defp filter(:states, states, walk) when is_list(states) do
    states = Enum.uniq(states)
    codes = for state <- states, {:ok, code} <- [Deliveries.state_code(state)], do: code

    cond do
      length(codes) < length(states) -> :error
      Enum.all?(codes, &(&1 >= 3)) -> failed(states(walk, codes))
      true -> states(walk, codes)
    end
  end

  defp filter(_key, _value, _walk), do: :error

  defp states(walk, codes), do: ask(walk, "state IN (#{Enum.join(codes, ", ")})", [])

  # An index of their own: what went wrong is what people look for.
  defp failed(walk), do: narrow(%{walk | index: "deliveries_failed"}, "state >= 3", [])

  defp narrow(walk, sql, params), do: %{walk | range: [{sql, params} | walk.range]}
  defp ask(walk, sql, params), do: %{walk | filters: [{sql, params} | walk.filters]}

  # --- walking

  defp bounds, do: {@walk_rows_max, System.monotonic_time(:millisecond) + @walk_ms_max}

  # Rows that match, and where the walk was given up; nil when it has come to the
  # end or there are enough.
  defp rows(_handle, %{nothing?: true}, _place, _wanted, _bounds), do: {:ok, [], nil}

  # With nothing to ask each row, the limit alone bounds the work.
  defp rows(handle, %{filters: []} = walk, place, wanted, _bounds) do
    with {:ok, rows} <- select(handle, walk, beyond(walk, place), wanted), do: {:ok, rows, nil}
  end

  defp rows(handle, walk, place, wanted, bounds),
    do: slices(handle, walk, place, wanted, bounds, [])

  defp slices(handle, walk, place, wanted, bounds, found) do
    range = beyond(walk, place)

    with {:ok, slice_end} <- slice_end(handle, walk, range),
         slice = if(slice_end, do: [up_to(walk, slice_end) | range], else: range),
         {:ok, rows} <- select(handle, walk, slice ++ walk.filters, wanted) do
      found = [rows | found]
      bounds = one_less(bounds)

      cond do
        slice_end == nil or length(rows) == wanted -> {:ok, in_order(found), nil}
        over?(bounds) -> {:ok, in_order(found), slice_end}
        true -> slices(handle, walk, slice_end, wanted - length(rows), bounds, found)
      end
    end
  end

  defp in_order(found), do: found |> Enum.reverse() |> Enum.concat()

  defp one_less(:to_the_end), do: :to_the_end
  defp one_less({rows, deadline}), do: {rows - @scan_slice, deadline}

  defp over?(:to_the_end), do: false
  defp over?({rows, deadline}), do: rows <= 0 or System.monotonic_time(:millisecond) >= deadline

  defp slice_end(handle, walk, range) do
    statement = statement(walk, "created_at_ms, seq", range, "LIMIT 1 OFFSET #{@scan_slice - 1}")

    case Connection.read(handle.connection, [statement]) do
      {:ok, [[place]]} -> {:ok, place}
      {:ok, [[]]} -> {:ok, nil}
      {:error, _reason} = error -> error
    end
  end

  defp select(handle, walk, conditions, wanted) do
    statement = statement(walk, walk.columns, conditions, "LIMIT #{wanted}")
    with {:ok, [rows]} <- Connection.read(handle.connection, [statement]), do: {:ok, rows}
  end

  defp statement(walk, columns, conditions, limit) do
    {sql, params} = Enum.unzip(conditions)
    way = Atom.to_string(walk.direction)

    {"SELECT #{columns} FROM deliveries INDEXED BY #{walk.index} " <>
       "WHERE #{Enum.join(sql, " AND ")} ORDER BY created_at_ms #{way}, seq #{way} #{limit}",
     Enum.concat(params)}
  end

  defp beyond(walk, nil), do: walk.range

  defp beyond(walk, {ms, seq}),
    do: [{"(created_at_ms, seq) #{past(walk)} (?, ?)", [ms, seq]} | walk.range]

  defp up_to(walk, {ms, seq}), do: {"(created_at_ms, seq) #{before(walk)} (?, ?)", [ms, seq]}

  defp past(%{direction: :desc}), do: "<"
  defp past(%{direction: :asc}), do: ">"
  defp before(%{direction: :desc}), do: ">="
  defp before(%{direction: :asc}), do: "<="

  # --- pages

  defp limit(limit) when limit in 1..@limit_max, do: {:ok, limit}
  defp limit(_other), do: {:error, :invalid_limit}

  defp next(rows, limit, stopped_at) do
    case Enum.drop(rows, limit - 1) do
      [last, _one_more] ->
        size = tuple_size(last)
        cursor({elem(last, size - 2), elem(last, size - 1)})

      _no_more ->
        stopped_at && cursor(stopped_at)
    end
  end

  defp cursor({created_at_ms, seq}),
    do: Base.url_encode64("#{created_at_ms}:#{seq}", padding: false)

  defp place(nil), do: {:ok, nil}

  defp place(cursor) when is_binary(cursor) do
    with {:ok, text} <- Base.url_decode64(cursor, padding: false),
         [ms, seq] <- String.split(text, ":"),
         {ms, ""} when ms in -@int64_max..@int64_max <- Integer.parse(ms),
         {seq, ""} when seq in 0..@int64_max <- Integer.parse(seq) do
      {:ok, {ms, seq}}
    else
      _other -> {:error, :invalid_cursor}
    end
  end

  defp place(_other), do: {:error, :invalid_cursor}
end
