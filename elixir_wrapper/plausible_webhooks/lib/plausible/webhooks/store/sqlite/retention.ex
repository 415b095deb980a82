defmodule Plausible.Webhooks.Store.SQLite.Retention do
  @moduledoc false
  # Deletes in slices. A trigger deletes bodies and attempts with their deliveries.

  alias Plausible.Webhooks.Store.Columns
  alias Plausible.Webhooks.Store.SQLite.Connection

  # Deliveries that one statement deletes: some ten milliseconds.
  @delete_slice 100
  @scan_slice 1_000

  def prune(handle, before_ms, limit) do
    audit = {"DELETE FROM audit WHERE at_ms < ?1", [Columns.audit_before_ms(before_ms)]}

    with :ok <- finish_deletions(handle),
         {:ok, _rows} <- Connection.write(handle.connection, [audit]),
         do: prune(handle, before_ms, limit, 0)
  end

  defp prune(_handle, _before_ms, limit, limit), do: {:ok, limit}

  defp prune(handle, before_ms, limit, done) do
    slice = min(limit - done, @delete_slice)

    # What is held has no time of its next attempt: it is in the index by its creation.
    statement = """
    DELETE FROM deliveries WHERE seq IN (
      SELECT * FROM (
        SELECT seq FROM deliveries WHERE finished_at_ms < ?1 ORDER BY finished_at_ms LIMIT ?2)
      UNION ALL
      SELECT * FROM (
        SELECT seq FROM deliveries INDEXED BY deliveries_waiting
        WHERE owner IS NULL AND state = -1 AND state <= 1
          AND coalesce(next_at_ms, created_at_ms) < ?1
        ORDER BY coalesce(next_at_ms, created_at_ms) LIMIT ?2)
      LIMIT ?2)
    RETURNING 1
    """

    with {:ok, [rows]} <- Connection.write(handle.connection, [{statement, [before_ms, slice]}]) do
      case length(rows) do
        ^slice -> prune(handle, before_ms, limit, done + slice)
        rest -> {:ok, done + rest}
      end
    end
  end

  # The rest of deletions during which the VM died.
  defp finish_deletions(handle) do
    statement = {"SELECT id, site_id FROM deleted_webhooks", []}

    with {:ok, [rows]} <- Connection.read(handle.connection, [statement]) do
      Enum.reduce_while(rows, :ok, fn {id, site_id}, :ok ->
        case delete_log(handle, site_id, id) do
          :ok -> {:cont, :ok}
          {:error, _reason} = error -> {:halt, error}
        end
      end)
    end
  end

  @doc "Deletes the log of a webhook that is deleted already."
  def delete_log(handle, site_id, webhook_id),
    do: delete_log(handle, site_id, webhook_id, {-1, -1})

  defp delete_log(handle, site_id, webhook_id, {created_at_ms, seq} = from) do
    boundary = """
    SELECT created_at_ms, seq FROM deliveries INDEXED BY deliveries_site
    WHERE site_id = ?1 AND (created_at_ms, seq) > (?2, ?3)
    ORDER BY created_at_ms, seq LIMIT 1 OFFSET #{@scan_slice - 1}
    """

    params = [site_id, created_at_ms, seq]

    case Connection.read(handle.connection, [{boundary, params}]) do
      {:ok, [[to]]} ->
        with :ok <- delete_range(handle, site_id, webhook_id, from, to),
             do: delete_log(handle, site_id, webhook_id, to)

      {:ok, [[]]} ->
        forget = {"DELETE FROM deleted_webhooks WHERE id = ?1", [webhook_id]}

        with :ok <- delete_range(handle, site_id, webhook_id, from, nil),
             {:ok, _} <- Connection.write(handle.connection, [forget]),
             do: :ok

      {:error, _reason} = error ->
        error
    end
  end

  defp delete_range(handle, site_id, webhook_id, {created_at_ms, seq}, to) do
    {until, until_params} =
      case to do
        nil -> {"", []}
        {to_ms, to_seq} -> {"AND (created_at_ms, seq) <= (?5, ?6)", [to_ms, to_seq]}
      end

    statement = """
    DELETE FROM deliveries WHERE seq IN (
      SELECT seq FROM deliveries INDEXED BY deliveries_site
      WHERE site_id = ?1 AND webhook_id = ?2 AND (created_at_ms, seq) > (?3, ?4) #{until}
      LIMIT #{@delete_slice})
    RETURNING 1
    """

    params = [site_id, webhook_id, created_at_ms, seq] ++ until_params

    with {:ok, _n} <-
           Connection.write_slices(handle.connection, {statement, params}, @delete_slice),
         do: :ok
  end
end
