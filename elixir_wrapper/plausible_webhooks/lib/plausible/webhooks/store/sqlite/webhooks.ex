defmodule Plausible.Webhooks.Store.SQLite.Webhooks do
  @moduledoc false
  # Webhooks and their alert states. URL, headers and secrets are one sealed
  # binary, bound to the webhook's id; of the URL only the host is in clear.

  alias Plausible.Webhooks.{Vault, Webhook}
  alias Plausible.Webhooks.Store.{Columns, Sealing}
  alias Plausible.Webhooks.Store.SQLite.{Connection, Rows}

  # Lists of names and of ids are text, separated by commas.
  @columns Enum.zip(
             Columns.webhook(),
             [:text, :int, :text, :text, :blob, :int, :text, :text, :int, :int, :int, :text] ++
               [:int, :int, :int, :int, :int]
           )
  @names Rows.names(@columns)

  @alert_state Enum.zip(
                 Columns.alert_state(),
                 [:text, :text, :text, :text, :int, :int, :int, :int, :int, :int]
               )

  def insert_webhook(handle, %Webhook{} = webhook) do
    statement = """
    INSERT INTO webhooks (#{@names})
    SELECT * FROM (#{Rows.select(@columns)}) AS given
    WHERE (SELECT count(*) FROM webhooks WHERE site_id = given.site_id) < ?3
    RETURNING 1
    """

    [params] = Rows.pack([row(handle.vault, webhook)], @columns)
    params = params ++ [handle.webhooks_per_site_max]

    case Connection.write(handle.connection, [{statement, params}]) do
      {:ok, [[{1}]]} -> :ok
      {:ok, [[]]} -> {:error, :limit_reached}
      {:error, {:sqlite, 19, "UNIQUE" <> _rest}} -> {:error, :already_exists}
      {:error, _reason} = error -> error
    end
  end

  def update_webhook(handle, %Webhook{} = webhook) do
    set =
      for {name, _kind} <- @columns, name not in ~w(id site_id inserted_at_ms version) do
        "#{name} = given.#{name}, "
      end

    statement = """
    UPDATE webhooks SET #{set} version = webhooks.version + 1
    FROM (#{Rows.select(@columns)}) AS given
    WHERE webhooks.id = given.id AND webhooks.site_id = given.site_id
      AND webhooks.version = given.version
    RETURNING version, inserted_at_ms
    """

    [params] = Rows.pack([row(handle.vault, webhook)], @columns)
    now = {"SELECT site_id FROM webhooks WHERE id = ?1", [webhook.id]}

    case Connection.write(handle.connection, [{statement, params}, now]) do
      {:ok, [[{version, inserted_at_ms}], _site]} ->
        {:ok, %{webhook | version: version, inserted_at_ms: inserted_at_ms}}

      {:ok, [[], [{site_id}]]} when site_id == webhook.site_id ->
        {:error, :stale}

      {:ok, [[], _none_or_of_another_site]} ->
        {:error, :not_found}

      {:error, _reason} = error ->
        error
    end
  end

  @doc "Removes the webhook and notes that its log is to be deleted."
  def delete(handle, site_id, id) do
    statements = [
      {"INSERT OR REPLACE INTO deleted_webhooks (id, site_id) " <>
         "SELECT id, site_id FROM webhooks WHERE id = ?1 AND site_id = ?2", [id, site_id]},
      {"DELETE FROM webhooks WHERE id = ?1 AND site_id = ?2 RETURNING 1", [id, site_id]}
    ]

    case Connection.write(handle.connection, statements) do
      {:ok, [_noted, [{1}]]} -> :ok
      {:ok, [_noted, []]} -> {:error, :not_found}
      {:error, _reason} = error -> error
    end
  end

  def get_webhook(handle, id) do
    statement = {"SELECT #{@names} FROM webhooks WHERE id = ?1", [id]}

    with {:ok, [rows]} <- Connection.read(handle.connection, [statement]),
         {:ok, webhooks} <- decode(rows, handle.vault) do
      case webhooks do
        [webhook] -> {:ok, webhook}
        [] -> {:error, :not_found}
      end
    end
  end

  @id [{"id", :text}]

  def get_webhooks(handle, ids) do
    select = "SELECT #{@names} FROM webhooks WHERE id IN (#{Rows.select(@id)})"
    statements = for params <- ids |> Enum.map(&[&1]) |> Rows.pack(@id), do: {select, params}

    with {:ok, results} <- Connection.read(handle.connection, statements),
         do: results |> Enum.concat() |> decode(handle.vault)
  end

  def list_webhooks(handle, site_id) do
    statement = "SELECT #{@names} FROM webhooks WHERE site_id = ?1 ORDER BY inserted_at_ms, rowid"

    select(handle, {statement, [site_id]})
  end

  def all_webhooks(handle),
    do: select(handle, {"SELECT #{@names} FROM webhooks ORDER BY inserted_at_ms, rowid", []})

  defp select(handle, statement) do
    with {:ok, [rows]} <- Connection.read(handle.connection, [statement]),
         do: decode(rows, handle.vault)
  end

  def put_health(handle, id, %{failing_since_ms: since_ms}) do
    columns = [{"id", :text}, {"failing_since_ms", :int}]
    [params] = Rows.pack([[id, since_ms]], columns)

    statement = """
    UPDATE webhooks SET failing_since_ms = given.failing_since_ms
    FROM (#{Rows.select(columns)}) AS given WHERE webhooks.id = given.id RETURNING 1
    """

    found(Connection.write(handle.connection, [{statement, params}]))
  end

  def put_health(handle, id, %{}) do
    statement = {"SELECT 1 FROM webhooks WHERE id = ?1", [id]}
    found(Connection.read(handle.connection, [statement]))
  end

  defp found({:ok, [[{1}]]}), do: :ok
  defp found({:ok, [[]]}), do: {:error, :not_found}
  defp found({:error, _reason} = error), do: error

  # --- rows

  defp row(vault, webhook) do
    Enum.zip_with(Columns.webhook(), Columns.from_webhook(webhook, vault), fn
      column, list when column in ["events", "goals"] and is_list(list) -> Enum.join(list, ",")
      _column, value -> value
    end)
  end

  defp decode(rows, vault) do
    rows
    |> Enum.map(fn row ->
      Enum.zip_with(Columns.webhook(), Tuple.to_list(row), fn
        "events", text -> String.split(text, ",", trim: true)
        "goals", text when is_binary(text) -> goal_ids(text)
        _column, value -> value
      end)
    end)
    |> Columns.to_webhooks(vault)
  end

  defp goal_ids(text),
    do: text |> String.split(",", trim: true) |> Enum.map(&String.to_integer/1)

  # --- keys

  @doc "Whether something is encrypted already. If so, no new key file may be made."
  def sealed?(connection) do
    with {:ok, [[{count}]]} <-
           Connection.read(connection, [{"SELECT count(*) FROM vault_check", []}]),
         do: {:ok, count > 0}
  end

  @mark "INSERT OR REPLACE INTO vault_check (id, sealed) VALUES (1, ?1)"

  @doc "Makes sure that the vault's keys are those of the file."
  def check_vault(connection, vault) do
    statements = [
      {"SELECT sealed FROM vault_check", []},
      {"SELECT id, sealed FROM webhooks", []}
    ]

    case Connection.read(connection, statements) do
      {:ok, [[], webhooks]} ->
        mark = {@mark, [{:blob, Sealing.mark(vault)}]}

        with :ok <- Sealing.check(nil, webhooks, vault),
             {:ok, _rows} <- Connection.write(connection, [mark]),
             do: :ok

      {:ok, [[{mark}], webhooks]} ->
        Sealing.check(mark, webhooks, vault)

      {:error, _reason} = error ->
        error
    end
  end

  @reseal [{"id", :text}, {"old", :blob}, {"new", :blob}]

  # Only if the row is still the one that was read.
  def rekey(%{connection: connection, vault: vault}, limit) do
    old = "FROM webhooks WHERE substr(sealed, 1, 5) <> ?1"
    prefix = {:blob, Vault.prefix(vault)}

    update = """
    UPDATE webhooks SET sealed = given.new FROM (#{Rows.select(@reseal)}) AS given
    WHERE webhooks.id = given.id AND webhooks.sealed = given.old RETURNING 1
    """

    with {:ok, [found]} <-
           Connection.read(connection, [{"SELECT id, sealed #{old} LIMIT ?2", [prefix, limit]}]),
         {:ok, rows} <- Sealing.anew(found, vault),
         updates = for(params <- Rows.pack(rows, @reseal), do: {update, params}),
         mark = {@mark, [{:blob, Sealing.mark(vault)}]},
         count = {"SELECT count(*) #{old}", [prefix]},
         {:ok, results} <- Connection.write(connection, updates ++ [mark, count]) do
      {written, [_mark, [{left}]]} = Enum.split(results, -2)
      {:ok, %{rewritten: written |> Enum.concat() |> length(), left: left}}
    end
  end

  # --- audit

  @audit Enum.zip(Columns.audit(), [:int, :text, :text, :text, :int])

  def add_audit(handle, entry) do
    [params] = Rows.pack([Columns.from_audit(entry)], @audit)
    statement = "INSERT INTO audit (#{Rows.names(@audit)}) #{Rows.select(@audit)}"
    with {:ok, _rows} <- Connection.write(handle.connection, [{statement, params}]), do: :ok
  end

  def audit(handle, site_id, webhook_id, limit) do
    statement = """
    SELECT #{Rows.names(@audit)} FROM audit WHERE webhook_id = ?1 AND site_id = ?2
    ORDER BY at_ms DESC, id DESC LIMIT ?3
    """

    params = [webhook_id, site_id, limit]

    with {:ok, [rows]} <- Connection.read(handle.connection, [{statement, params}]),
         do: {:ok, Enum.map(rows, &(&1 |> Tuple.to_list() |> Columns.to_audit()))}
  end

  # --- traffic alerts

  def alert_states(handle, ids) do
    columns = [{"id", :text}]

    # Distinct first: an id given twice must not come twice.
    statement = """
    SELECT #{Rows.names(@alert_state)} FROM alert_states
    WHERE webhook_id IN (#{Rows.select(columns)}) ORDER BY webhook_id, kind
    """

    statements =
      for params <- ids |> Enum.uniq() |> Enum.map(&[&1]) |> Rows.pack(columns),
          do: {statement, params}

    with {:ok, results} <- Connection.read(handle.connection, statements) do
      rows = Enum.concat(results)
      {:ok, Enum.map(rows, &(&1 |> Tuple.to_list() |> Columns.to_alert_state()))}
    end
  end

  def put_alert_state(handle, state) do
    [params] = Rows.pack([Columns.from_alert_state(state)], @alert_state)
    names = Rows.names(@alert_state)
    statement = "INSERT OR REPLACE INTO alert_states (#{names}) #{Rows.select(@alert_state)}"

    case Connection.write(handle.connection, [{statement, params}]) do
      {:ok, _results} -> :ok
      {:error, {:sqlite, 19, "FOREIGN KEY" <> _rest}} -> {:error, :not_found}
      {:error, _reason} = error -> error
    end
  end
end
