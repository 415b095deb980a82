defmodule Plausible.Webhooks.Store.Ecto.Log do
  @moduledoc false
  # The log of a site, page by page, and what of it can be recovered.
  #
  # What is asked for is looked up along one of five indexes: the site's deliveries
  # or the webhook's, all of them or the "open" ones, or the site's alerts. What no
  # index knows (a goal, say) is asked of row after row. A filter may match nothing
  # among millions of rows; so the walk goes in slices, each a statement of its own,
  # and ends after `@walk_rows_max` rows or `@walk_ms_max` with what it has found. A
  # page may then be short, and its cursor is where the walk has got to.

  alias Plausible.Webhooks.{Store, Webhook}
  alias Plausible.Webhooks.Store.Ecto.{Database, Rows, SQL, Text}

  # Small at first: mostly the page is full at once.
  @slice_first 1_000
  @slice_max 10_000
  @walk_rows_max 100_000
  @walk_ms_max 1_000
  @limit_max 200
  @limit_default 50
  @types_max 100
  @int64_max 9_223_372_036_854_775_807

  # As the indexes of the migration say it, word for word: that is how the planner
  # knows that they hold everything that is asked for.
  @open "(state <> 2 OR last_status IS NULL OR last_status NOT BETWEEN 200 AND 299)"

  # Alerts and tests: all types but the one that everybody has by the thousand.
  @goal_type "goal.completed"
  @alerts "type <> '#{@goal_type}'"

  @type place :: {created_at_ms :: integer(), seq :: integer()}

  @spec page(Store.Ecto.handle(), integer(), Store.filters(), Store.page()) ::
          {:ok, Store.page_of(Plausible.Webhooks.Delivery.t())} | {:error, term()}
  def page(store, site_id, filters, page) do
    with {:ok, limit} <- limit(Map.get(page, :limit, @limit_default)),
         {:ok, place} <- place(Map.get(page, :after)),
         {:ok, walk} <- walk(site_id, filters),
         # One more than asked for, to know whether there is a next page.
         {:ok, rows, stopped_at} <- rows(store, walk, place, limit + 1) do
      entries = rows |> Enum.take(limit) |> Enum.map(&Rows.to_delivery/1)
      {:ok, %{entries: entries, next: next(rows, limit, stopped_at)}}
    end
  end

  @recoverable """
  SELECT id FROM PREFIX.webhook_deliveries
  WHERE webhook_id = $1 AND state >= 3 AND #{@open} AND created_at_ms >= $2
    AND EXISTS (SELECT 1 FROM PREFIX.webhooks WHERE id = $1)
  ORDER BY created_at_ms, seq LIMIT $3
  """

  @spec recoverable(Store.Ecto.handle(), Webhook.id(), integer(), pos_integer()) ::
          {:ok, [String.t()]} | {:error, term()}
  def recoverable(store, webhook_id, since_ms, limit) do
    params = [Text.encode(webhook_id), since_ms, limit]

    with {:ok, rows} <- Database.query(store, nil, @recoverable, params),
         do: {:ok, Enum.map(rows, fn [id] -> Text.decode(id) end)}
  end

  # --- filters

  # range: what an index narrows down, all of it: nothing that the planner could
  # misjudge stands beside it. filters: what each row of the range is asked.
  defp walk(site_id, filters) do
    start = along(%{range: [], filters: [], nothing?: false}, site_id, filters)

    Enum.reduce_while(filters, {:ok, start}, fn {key, value}, {:ok, walk} ->
      case filter(key, value, walk) do
        :error -> {:halt, {:error, {:invalid_filter, key}}}
        walk -> {:cont, {:ok, walk}}
      end
    end)
  end

  # The narrowest first. That a webhook is one of this site is asked of each row.
  defp along(walk, site_id, filters) do
    webhook_id = filters[:webhook_id]

    cond do
      alerts?(filters) and is_binary(webhook_id) ->
        walk |> along_site(site_id) |> narrow(@alerts, []) |> ask_webhook(webhook_id)

      alerts?(filters) ->
        walk |> along_site(site_id) |> narrow(@alerts, [])

      is_binary(webhook_id) ->
        walk
        |> narrow("webhook_id = ?", [Text.encode(webhook_id)])
        |> ask("site_id = ?", [site_id])

      true ->
        along_site(walk, site_id)
    end
  end

  defp along_site(walk, site_id), do: narrow(walk, "site_id = ?", [site_id])
  defp ask_webhook(walk, id), do: ask(walk, "webhook_id = ?", [Text.encode(id)])

  defp alerts?(%{types: [_ | _] = types}), do: @goal_type not in types
  defp alerts?(_filters), do: false

  defp filter(:webhook_id, id, walk) when is_binary(id), do: walk

  defp filter(:goal_id, id, walk) when id in -@int64_max..@int64_max,
    do: ask(walk, "goal_id = ?", [id])

  defp filter(:since_ms, ms, walk) when ms in -@int64_max..@int64_max,
    do: narrow(walk, "created_at_ms >= ?", [ms])

  defp filter(:until_ms, ms, walk) when ms in -@int64_max..@int64_max,
    do: narrow(walk, "created_at_ms < ?", [ms])

  defp filter(:status_class, :none, walk),
    do: ask(narrow(walk, @open, []), "last_status IS NULL AND attempts > 0", [])

  defp filter(:status_class, 2, walk),
    do: ask(walk, "last_status BETWEEN 200 AND 299", [])

  defp filter(:status_class, class, walk) when class in 3..5,
    do:
      ask(narrow(walk, @open, []), "last_status BETWEEN ? AND ?", [class * 100, class * 100 + 99])

  defp filter(key, [], walk) when key in [:types, :states], do: %{walk | nothing?: true}

  defp filter(:types, types, walk) when is_list(types) do
    if length(types) <= @types_max and Enum.all?(types, &is_binary/1),
      do: ask(walk, "type = ANY(?::text[])", [Enum.map(types, &Text.encode/1)]),
      else: :error
  end

  defp filter(:states, states, walk) when is_list(states) do
    codes = for state <- states, {:ok, code} <- [Rows.state_code(state)], do: code

    cond do
      length(codes) < length(states) -> :error
      2 in codes -> ask(walk, "state = ANY(?::smallint[])", [codes])
      true -> ask(narrow(walk, @open, []), "state = ANY(?::smallint[])", [codes])
    end
  end

  defp filter(_key, _value, _walk), do: :error

  defp narrow(walk, sql, params), do: %{walk | range: [{sql, params} | walk.range]}
  defp ask(walk, sql, params), do: %{walk | filters: [{sql, params} | walk.filters]}

  # --- walking

  @columns SQL.names(Rows.delivery_columns()) <> ", created_at_ms, seq"
  # The same three times in a statement, so that nothing has to be sorted.
  @order "ORDER BY created_at_ms DESC, seq DESC"

  # Rows that match, and where the walk was given up; nil when it has come to the
  # end or the page is full.
  defp rows(_store, %{nothing?: true}, _place, _wanted), do: {:ok, [], nil}

  # With nothing to ask each row, the limit alone bounds the work.
  defp rows(store, %{filters: []} = walk, place, wanted) do
    with {:ok, rows} <- select(store, beyond(walk, place), wanted), do: {:ok, rows, nil}
  end

  defp rows(store, walk, place, wanted) do
    deadline = System.monotonic_time(:millisecond) + @walk_ms_max
    slices(store, walk, place, wanted, %{slice: @slice_first, walked: 0, deadline: deadline}, [])
  end

  defp slices(store, walk, place, wanted, bounds, found) do
    with {:ok, matching, slice_end} <- slice(store, walk, place, wanted, bounds.slice) do
      found = [matching | found]
      walked = bounds.walked + bounds.slice

      cond do
        slice_end == nil or length(matching) == wanted ->
          {:ok, in_order(found), nil}

        walked >= @walk_rows_max or System.monotonic_time(:millisecond) >= bounds.deadline ->
          {:ok, in_order(found), slice_end}

        true ->
          size = Enum.min([bounds.slice * 2, @slice_max, @walk_rows_max - walked])
          bounds = %{bounds | slice: size, walked: walked}
          slices(store, walk, slice_end, wanted - length(matching), bounds, found)
      end
    end
  end

  defp in_order(found), do: found |> Enum.reverse() |> Enum.concat()

  # Nothing is asked before the inner limit, so the planner has one way to go. The
  # last row of a full slice comes along, matching or not: there the next begins.
  # The statement stops at the last row that is wanted.
  defp slice(store, walk, place, wanted, size) do
    {asked, asked_params} = conjunction(walk.filters)
    {range, range_params} = conjunction(beyond(walk, place))

    sql = """
    SELECT matches, n, #{@columns} FROM (
      SELECT *, coalesce(#{asked}, false) AS matches, row_number() OVER (#{@order}) AS n FROM (
        SELECT * FROM PREFIX.webhook_deliveries WHERE #{range} #{@order} LIMIT #{size}) AS walked)
      AS judged
    WHERE matches OR n = #{size} #{@order} LIMIT #{wanted}
    """

    with {:ok, rows} <- Database.query(store, nil, numbered(sql), asked_params ++ range_params) do
      {:ok, for([true, _n | row] <- rows, do: row), slice_end(List.last(rows), size)}
    end
  end

  defp slice_end([_matches, size | row], size), do: place_of(row)
  defp slice_end(_last, _size), do: nil

  defp select(store, range, wanted) do
    {range, params} = conjunction(range)

    sql =
      "SELECT #{@columns} FROM PREFIX.webhook_deliveries WHERE #{range} #{@order} LIMIT #{wanted}"

    Database.query(store, nil, numbered(sql), params)
  end

  defp conjunction(conditions) do
    {sql, params} = Enum.unzip(conditions)
    {Enum.join(sql, " AND "), Enum.concat(params)}
  end

  # "?" in the order of the values. None of our texts has one elsewhere.
  defp numbered(sql) do
    [first | rest] = String.split(sql, "?")

    Enum.join([first | rest |> Enum.with_index(1) |> Enum.map(fn {text, n} -> "$#{n}#{text}" end)])
  end

  defp beyond(walk, nil), do: walk.range

  defp beyond(walk, place),
    do: [{"(created_at_ms, seq) < (?, ?)", Tuple.to_list(place)} | walk.range]

  # --- pages

  defp limit(limit) when limit in 1..@limit_max, do: {:ok, limit}
  defp limit(_other), do: {:error, :invalid_limit}

  defp next(rows, limit, stopped_at) do
    case Enum.drop(rows, limit - 1) do
      [last, _one_more] -> cursor(place_of(last))
      _no_more -> stopped_at && cursor(stopped_at)
    end
  end

  defp place_of(row), do: row |> Enum.take(-2) |> List.to_tuple()

  defp cursor({created_at_ms, seq}),
    do: Base.url_encode64("#{created_at_ms}:#{seq}", padding: false)

  @spec place(term()) :: {:ok, place() | nil} | {:error, :invalid_cursor}
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
