defmodule Plausible.Webhooks.Store.Ecto.Log do
  @moduledoc false
  # The log of a site, page by page, and what of it can be recovered.
  #
  # A filter may match nothing among millions of rows. The deliveries of the site,
  # or of the webhook when there is one in the filter, are therefore walked along
  # an index in slices, each a statement of its own, until the page is full: no
  # statement runs into its time limit, and the connection is given back in between.
  #
  # Statements are planned with their values: which index is the right one depends
  # on them.

  alias Plausible.Webhooks.{Store, Webhook}
  alias Plausible.Webhooks.Store.Ecto.{Database, Rows, SQL, Text}

  @scan_slice 10_000
  @limit_max 200
  @limit_default 50
  @types_max 100
  @int64_max 9_223_372_036_854_775_807

  # As the indexes of the migration say it, word for word: that is how the planner
  # knows that they hold everything that is asked for.
  @open "(state <> 2 OR last_status IS NULL OR last_status NOT BETWEEN 200 AND 299)"

  @type place :: {created_at_ms :: integer(), seq :: integer()}

  @spec page(Store.Ecto.handle(), integer(), Store.filters(), Store.page()) ::
          {:ok, Store.page_of(Plausible.Webhooks.Delivery.t())} | {:error, term()}
  def page(store, site_id, filters, page) do
    with {:ok, limit} <- limit(Map.get(page, :limit, @limit_default)),
         {:ok, place} <- place(Map.get(page, :after)),
         {:ok, walk} <- walk(site_id, filters),
         # One more than asked for, to know whether there is a next page.
         {:ok, rows} <- rows(store, walk, place, limit + 1, []) do
      entries = rows |> Enum.take(limit) |> Enum.map(&Rows.to_delivery/1)
      {:ok, %{entries: entries, next: next(rows, limit)}}
    end
  end

  @recoverable """
  SELECT id FROM PREFIX.webhook_deliveries
  WHERE webhook_id = $1 AND state >= 3 AND #{@open} AND created_at_ms >= $2
    AND site_id + 0 = (SELECT site_id FROM PREFIX.webhooks WHERE id = $1)
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

  # range: what the index narrows down. filters: what each row is asked.
  defp walk(site_id, filters) do
    start = %{range: range(site_id, filters), filters: [], nothing?: false}

    Enum.reduce_while(filters, {:ok, start}, fn {key, value}, {:ok, walk} ->
      case filter(key, value, walk) do
        :error -> {:halt, {:error, {:invalid_filter, key}}}
        walk -> {:cont, {:ok, walk}}
      end
    end)
  end

  # With a webhook the site becomes a question to each row. The sum keeps the
  # planner from walking along the site all the same.
  defp range(site_id, %{webhook_id: id}) when is_binary(id),
    do: [{"webhook_id = ?", [Text.encode(id)]}, {"site_id + 0 = ?", [site_id]}]

  defp range(site_id, _filters), do: [{"site_id = ?", [site_id]}]

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

  defp rows(_store, %{nothing?: true}, _place, _wanted, []), do: {:ok, []}

  # With nothing to ask each row, the limit alone bounds the work.
  defp rows(store, %{filters: []} = walk, place, wanted, []),
    do: select(store, @columns, beyond(walk, place), "LIMIT #{wanted}")

  defp rows(store, walk, place, wanted, found) do
    range = beyond(walk, place)

    with {:ok, slice_end} <- slice_end(store, range),
         slice = if(slice_end, do: [up_to(slice_end) | range], else: range),
         {:ok, rows} <- select(store, @columns, slice ++ walk.filters, "LIMIT #{wanted}") do
      found = [rows | found]

      if slice_end == nil or length(rows) == wanted,
        do: {:ok, found |> Enum.reverse() |> Enum.concat()},
        else: rows(store, walk, slice_end, wanted - length(rows), found)
    end
  end

  defp slice_end(store, range) do
    case select(store, "created_at_ms, seq", range, "LIMIT 1 OFFSET #{@scan_slice - 1}") do
      {:ok, [[created_at_ms, seq]]} -> {:ok, {created_at_ms, seq}}
      {:ok, []} -> {:ok, nil}
      {:error, _reason} = error -> error
    end
  end

  defp select(store, columns, conditions, limit) do
    {sql, params} = Enum.unzip(conditions)

    statement =
      "SELECT #{columns} FROM PREFIX.webhook_deliveries WHERE #{Enum.join(sql, " AND ")} " <>
        "ORDER BY created_at_ms DESC, seq DESC #{limit}"

    Database.query(store, nil, numbered(statement), Enum.concat(params))
  end

  # "?" in the order of the values. None of our texts has one elsewhere.
  defp numbered(statement) do
    [first | rest] = String.split(statement, "?")

    Enum.join([first | rest |> Enum.with_index(1) |> Enum.map(fn {text, n} -> "$#{n}#{text}" end)])
  end

  defp beyond(walk, nil), do: walk.range

  defp beyond(walk, place),
    do: [{"(created_at_ms, seq) < (?, ?)", Tuple.to_list(place)} | walk.range]

  defp up_to(place), do: {"(created_at_ms, seq) >= (?, ?)", Tuple.to_list(place)}

  # --- pages

  defp limit(limit) when limit in 1..@limit_max, do: {:ok, limit}
  defp limit(_other), do: {:error, :invalid_limit}

  defp next(rows, limit) do
    case Enum.drop(rows, limit - 1) do
      [last, _one_more] ->
        [created_at_ms, seq] = Enum.take(last, -2)
        Base.url_encode64("#{created_at_ms}:#{seq}", padding: false)

      _no_more ->
        nil
    end
  end

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
