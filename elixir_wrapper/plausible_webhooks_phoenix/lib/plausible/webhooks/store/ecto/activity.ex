defmodule Plausible.Webhooks.Store.Ecto.Activity do
  @moduledoc false
  # What became of a webhook's deliveries lately: figures that are looked at often.
  #
  # What finished in a window was either created in it, or up to an hour before, and
  # is found along the webhook's index; or it finished late, after more than an hour
  # (a recovery, mostly), and is in an index of its own. So nobody needs an index of
  # all ends by webhook, which every attempt would have to pay for.
  #
  # Each of the two walks reads the newest and ends at a cap. The webhooks of a site
  # share what one call reads at most: first all get a little, then those that had
  # more get what each of them may have.

  alias Plausible.Webhooks.{Store, Webhook}
  alias Plausible.Webhooks.Migrations.V01
  alias Plausible.Webhooks.Store.Ecto.{Database, Rows, SQL, Text}

  @first_rows_max 10_000
  @rows_max 100_000
  @all_rows_max 300_000
  @waiting_max 10_000
  @waiting_walk_max 50_000
  @hour_ms 3_600_000

  @late V01.late()
  # As in Log.
  @open "(state <> 2 OR last_status IS NULL OR last_status NOT BETWEEN 200 AND 299)"

  # Of the first walk the rows that do not count have no hour: they are there so that
  # it can be seen whether it came to its end.
  @finished """
  SELECT given.id, walk, hour, state, n FROM unnest($1::text[]) AS given (id)
  CROSS JOIN LATERAL (
    SELECT 1 AS walk, CASE WHEN finished_at_ms >= $2 AND NOT late
      THEN finished_at_ms / #{@hour_ms} END AS hour, state, count(*) AS n
    FROM (
      SELECT finished_at_ms, state, (#{@late}) AS late FROM PREFIX.webhook_deliveries
      WHERE webhook_id = given.id AND created_at_ms >= $2::bigint - #{@hour_ms}
      ORDER BY created_at_ms DESC, seq DESC LIMIT $3) AS created
    GROUP BY 1, 2, 3
    UNION ALL
    SELECT 2, finished_at_ms / #{@hour_ms}, state, count(*)
    FROM (
      SELECT finished_at_ms, state FROM PREFIX.webhook_deliveries
      WHERE webhook_id = given.id AND finished_at_ms >= $2 AND #{@late}
      ORDER BY finished_at_ms DESC LIMIT $3) AS late
    GROUP BY 1, 2, 3) AS counted
  """

  @newest """
  SELECT newest.* FROM unnest($1::text[]) AS given (id)
  CROSS JOIN LATERAL (
    SELECT #{SQL.names(Rows.delivery_columns())} FROM PREFIX.webhook_deliveries
    WHERE webhook_id = given.id AND site_id = $2
    ORDER BY created_at_ms DESC, seq DESC LIMIT 1) AS newest
  """

  @spec activity(Store.Ecto.handle(), integer(), [Webhook.id()], integer()) ::
          {:ok, %{Webhook.id() => Store.activity()}} | {:error, term()}
  def activity(store, site_id, ids, since_ms) do
    with {:ok, first} <- finished(store, ids, since_ms, @first_rows_max),
         {:ok, second} <- again(store, first, since_ms),
         {:ok, rows} <- Database.query(store, nil, @newest, [encoded(ids), site_id]) do
      newest = for row <- rows, delivery = Rows.to_delivery(row), into: %{}, do: newest(delivery)
      figures = Map.merge(first, second)
      {:ok, Map.new(ids, &{&1, Map.put(figures[&1], :last, newest[&1])})}
    end
  end

  defp newest(delivery), do: {delivery.webhook_id, delivery}

  defp again(store, first, since_ms) do
    case for {id, %{complete?: false}} <- first, do: id do
      [] ->
        {:ok, %{}}

      ids ->
        rows_max = min(@rows_max, div(@all_rows_max, length(ids)))

        if rows_max > @first_rows_max,
          do: finished(store, ids, since_ms, rows_max),
          else: {:ok, %{}}
    end
  end

  defp finished(store, ids, since_ms, rows_max) do
    params = [encoded(ids), since_ms, rows_max]

    with {:ok, rows} <- Database.query(store, nil, @finished, params) do
      by_id = Enum.group_by(rows, &hd/1, &tl/1)
      {:ok, Map.new(ids, &{&1, figures(Map.get(by_id, Text.encode(&1), []), rows_max)})}
    end
  end

  defp figures(rows, rows_max) do
    finished =
      for [_walk, hour, state, n] <- rows, hour != nil, reduce: %{} do
        counts -> Map.update(counts, {hour * @hour_ms, Rows.state_name(state)}, n, &(&1 + n))
      end

    walked = fn walk -> Enum.sum(for [^walk, _hour, _state, n] <- rows, do: n) end
    %{finished: finished, complete?: walked.(1) < rows_max and walked.(2) < rows_max}
  end

  # --- what waits

  @waiting """
  SELECT given.id, waiting, walked FROM unnest($1::text[]) AS given (id)
  CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE state <= 1) AS waiting, count(*) AS walked
    FROM (
      SELECT state FROM PREFIX.webhook_deliveries WHERE webhook_id = given.id AND #{@open}
      ORDER BY created_at_ms DESC, seq DESC LIMIT #{@waiting_walk_max}) AS open) AS counted
  """

  @spec waiting(Store.Ecto.handle(), [Webhook.id()]) ::
          {:ok, %{Webhook.id() => Store.waiting()}} | {:error, term()}
  def waiting(store, ids) do
    with {:ok, rows} <- Database.query(store, nil, @waiting, [encoded(ids)]) do
      {:ok,
       Map.new(rows, fn [id, waiting, walked] ->
         more? = waiting > @waiting_max or walked == @waiting_walk_max
         {Text.decode(id), %{count: min(waiting, @waiting_max), more?: more?}}
       end)}
    end
  end

  defp encoded(ids), do: Enum.map(ids, &Text.encode/1)
end
