# Fills the tables of Store.Ecto with the log of a month, for benchmarks of a long log: 50
# sites, the first with half of all deliveries; 98 % delivered at once, a rare goal, few
# alerts, 2 000 pending, 5 000 parked.
defmodule Bench.Tables do
  use Ecto.Migration
  def up, do: Plausible.Webhooks.Migrations.up(version: 1)
end

defmodule Bench.Fill do
  # Writes the rows by SQL.
  alias Bench.Repo

  def fill(rows, days) do
    sql("SELECT setseed(0.5)")

    sql("""
    INSERT INTO webhooks (id, site_id, name, sealed, enabled, events, traffic_min_interval_s,
      version, inserted_at_ms, updated_at_ms)
    SELECT #{webhook("site", "n")}, site, 'x', '', true, '{goal.completed}', 0, 1, 0, 0
    FROM generate_series(1, 50) AS site, generate_series(1, 2) AS n
    """)

    sql(deliveries(rows, days * 86_400_000, System.system_time(:millisecond)))

    sql("""
    INSERT INTO webhook_bodies (seq, body)
    SELECT seq, decode(repeat(md5(seq::text), 41), 'hex') FROM webhook_deliveries
    """)

    sql("""
    INSERT INTO webhook_attempts (seq, number, maker, state, status, started_at_ms, total_us,
      response_headers, response_body, response_truncated, gone, remote_ip)
    SELECT seq, n, 0, 2, last_status, created_at_ms, 1000,
      'content-type: application/json', 'ok', false, false, '203.0.113.9'
    FROM webhook_deliveries, generate_series(1, attempts) AS n
    """)

    # One of the three owners is dead.
    sql("""
    INSERT INTO webhook_owners (owner, until_ms)
    SELECT 'node_' || n, CASE WHEN n = 0 THEN 0 ELSE 9000000000000 END
    FROM generate_series(0, 2) AS n
    """)

    sql("VACUUM ANALYZE")
  end

  def webhook(site, n), do: "'wh_' || lpad((#{site} * 10 + #{n})::text, 26, '0')"

  defp deliveries(rows, ms, now_ms) do
    """
    INSERT INTO webhook_deliveries (id, webhook_id, site_id, type, goal_id, state, reason,
      attempts, schedule_from, created_at_ms, next_at_ms, finished_at_ms, owner, last_status,
      last_error, manual, retry)
    SELECT 'msg_' || lpad(to_hex(i), 26, '0'),
      #{webhook("site", "CASE WHEN w < 0.9 THEN 1 ELSE 2 END")}, site, type,
      CASE WHEN type = 'goal.completed' THEN goal END, state,
      CASE WHEN state >= 3 THEN 'http_status' END,
      CASE state WHEN 0 THEN 0 WHEN 1 THEN 2 WHEN 3 THEN 4 ELSE 1 END, 0, at_ms,
      CASE WHEN state = 1 THEN at_ms + 300000 END, CASE WHEN state >= 2 THEN at_ms + 200 END,
      CASE WHEN state = 0 THEN 'node_' || (i % 3) END,
      CASE state WHEN 1 THEN 503 WHEN 2 THEN 200 WHEN 3 THEN 500 END,
      CASE WHEN state IN (1, 3) THEN 'http_status' END, false, true
    FROM (
      SELECT i, CASE WHEN random() < 0.5 THEN 1 ELSE 2 + floor(random() * 49)::int END AS site,
        random() AS w,
        CASE WHEN random() < 0.0001 THEN 'traffic.spike' ELSE 'goal.completed' END AS type,
        CASE WHEN random() < 0.0001 THEN 99 ELSE 1 + floor(random() * 20)::int END AS goal,
        CASE WHEN i > #{rows - 2_000} THEN 0 WHEN i > #{rows - 7_000} THEN 1
          WHEN q < 0.98 THEN 2 WHEN q < 0.997 THEN 3 ELSE 4 END AS state,
        #{now_ms - ms} + (i * #{ms / rows})::bigint AS at_ms
      FROM (SELECT i, random() AS q FROM generate_series(1, #{rows}) AS i) AS x OFFSET 0) AS given
    """
  end

  defp sql(sql), do: Repo.query!(sql, [], timeout: :infinity, log: false)
end
