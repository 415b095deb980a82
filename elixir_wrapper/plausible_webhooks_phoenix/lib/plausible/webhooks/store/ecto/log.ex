defmodule Plausible.Webhooks.Store.Ecto.Log do
  @moduledoc false
  # The log of a site, page by page, and the deliveries that can be recovered.
  #
  # A query walks along one of five indexes: the site's deliveries or the webhook's, all of
  # them or the open ones (`SQL.open/0`), or the site's alerts. Filters that no index knows,
  # such as a goal, are checked row after row, in the slices of
  # `Plausible.Webhooks.Store.LogQuery`.

  alias Plausible.Webhooks.{Delivery, Store, Webhook}
  alias Plausible.Webhooks.Store.Ecto.{Database, Rows, SQL, Text}
  alias Plausible.Webhooks.Store.LogQuery

  # Small at first: usually the page is full at once.
  @slices {1_000, 10_000}

  # Alerts and tests: every type but the one that sites have by the thousand.
  @goal_type "goal.completed"
  @alerts "type <> '#{@goal_type}'"

  @spec deliveries(Store.Ecto.handle(), integer(), Store.filters(), Store.page()) ::
          {:ok, Store.page_of(Delivery.t())} | {:error, term()}
  def deliveries(store, site_id, filters, page) do
    with {:ok, query} <- LogQuery.new(filters, page),
         # One more than asked for shows whether another page follows.
         {:ok, rows, stopped_at} <- rows(store, walk(site_id, query), query, query.limit + 1),
         do: {:ok, LogQuery.page(query, rows, stopped_at, &place_of/1, &Rows.to_delivery/1)}
  end

  @recoverable """
  SELECT id FROM PREFIX.webhook_deliveries
  WHERE webhook_id = $1 AND state >= 3 AND #{SQL.open()} AND created_at_ms >= $2 AND retry
    AND EXISTS (SELECT 1 FROM PREFIX.webhooks WHERE id = $1)
  ORDER BY created_at_ms, seq LIMIT $3
  """

  @spec recoverable(Store.Ecto.handle(), Webhook.id(), integer(), pos_integer()) ::
          {:ok, [String.t()]} | {:error, term()}
  def recoverable(store, webhook_id, since_ms, limit) do
    params = [Text.encode(webhook_id), since_ms, limit]
    Database.all(store, @recoverable, params, fn [id] -> Text.decode(id) end)
  end

  # --- filters

  # range: what an index narrows down, and nothing that the planner could misjudge.
  # filters: what each row of the range is checked for.
  defp walk(site_id, query) do
    webhook_id = query.filters[:webhook_id]
    types = query.filters[:types]
    site = {"site_id = ?", [site_id]}
    webhook = webhook_id && {"webhook_id = ?", [Text.encode(webhook_id)]}

    # The narrowest index. Whether the webhook is one of this site is checked row by row.
    {range, filters} =
      cond do
        types not in [nil, []] and @goal_type not in types ->
          {[{@alerts, []}, site], List.wrap(webhook)}

        webhook ->
          {[webhook], [site]}

        true ->
          {[site], []}
      end

    Enum.reduce(query.filters, %{range: range, filters: filters}, &filter/2)
  end

  defp filter({:webhook_id, _id}, walk), do: walk
  defp filter({:goal_id, id}, walk), do: check(walk, "goal_id = ?", [id])
  defp filter({:since_ms, ms}, walk), do: narrow(walk, "created_at_ms >= ?", [ms])
  defp filter({:until_ms, ms}, walk), do: narrow(walk, "created_at_ms < ?", [ms])

  defp filter({:status_class, :none}, walk),
    do: walk |> narrow(SQL.open(), []) |> check("last_status IS NULL AND attempts > 0", [])

  defp filter({:status_class, class}, walk) do
    walk = if class == 2, do: walk, else: narrow(walk, SQL.open(), [])
    check(walk, "last_status BETWEEN ? AND ?", [class * 100, class * 100 + 99])
  end

  defp filter({:types, types}, walk),
    do: check(walk, "type = ANY(?::text[])", [Enum.map(types, &Text.encode/1)])

  defp filter({:states, codes}, walk) do
    walk = if 2 in codes, do: walk, else: narrow(walk, SQL.open(), [])
    check(walk, "state = ANY(?::smallint[])", [codes])
  end

  defp narrow(walk, sql, params), do: %{walk | range: [{sql, params} | walk.range]}
  defp check(walk, sql, params), do: %{walk | filters: [{sql, params} | walk.filters]}

  # --- walking

  @columns SQL.names(Rows.delivery()) <> ", created_at_ms, seq"
  # The same three times in a statement, so that nothing has to be sorted.
  @order "ORDER BY created_at_ms DESC, seq DESC"

  defp rows(_store, _walk, %{nothing?: true}, _wanted), do: {:ok, [], nil}

  # Without a filter the limit alone bounds the work.
  defp rows(store, %{filters: []} = walk, query, wanted) do
    {range, params} = conjunction(beyond(walk, query.after))

    sql =
      "SELECT #{@columns} FROM PREFIX.webhook_deliveries WHERE #{range} #{@order} LIMIT #{wanted}"

    with {:ok, rows} <- Database.query(store, nil, numbered(sql), params), do: {:ok, rows, nil}
  end

  defp rows(store, walk, query, wanted),
    do: LogQuery.walk(query.after, wanted, @slices, :bounded, &slice(store, walk, &1, &2, &3))

  # Nothing is checked before the inner limit, so the planner has one way to go. The last
  # row of a full slice is returned, matching or not: the next slice begins there. The
  # statement stops at the last row that is wanted.
  defp slice(store, walk, place, wanted, size) do
    {checked, checked_params} = conjunction(walk.filters)
    {range, range_params} = conjunction(beyond(walk, place))

    sql = """
    SELECT matches, n, #{@columns} FROM (
      SELECT *, coalesce(#{checked}, false) AS matches, row_number() OVER (#{@order}) AS n FROM (
        SELECT * FROM PREFIX.webhook_deliveries WHERE #{range} #{@order} LIMIT #{size}) AS walked)
      AS judged
    WHERE matches OR n = #{size} #{@order} LIMIT #{wanted}
    """

    with {:ok, rows} <- Database.query(store, nil, numbered(sql), checked_params ++ range_params) do
      slice_end =
        case List.last(rows) do
          [_matches, ^size | row] -> place_of(row)
          _last -> nil
        end

      {:ok, for([true, _n | row] <- rows, do: row), slice_end}
    end
  end

  defp conjunction(conditions) do
    {sql, params} = Enum.unzip(conditions)
    {Enum.join(sql, " AND "), Enum.concat(params)}
  end

  # Replaces "?" in the order of the values. No text of ours has another one.
  defp numbered(sql) do
    [first | rest] = String.split(sql, "?")

    Enum.join([first | rest |> Enum.with_index(1) |> Enum.map(fn {text, n} -> "$#{n}#{text}" end)])
  end

  defp beyond(walk, nil), do: walk.range

  defp beyond(walk, place),
    do: [{"(created_at_ms, seq) < (?, ?)", Tuple.to_list(place)} | walk.range]

  defp place_of(row), do: row |> Enum.take(-2) |> List.to_tuple()
end
