defmodule Plausible.Webhooks.Store.Ecto.Webhooks do
  @moduledoc false
  # Webhooks and their alert states. URL, headers and secrets are one sealed binary, bound to
  # the webhook's id; only the host of the URL is in clear.

  alias Plausible.Webhooks.{Store, Webhook}
  alias Plausible.Webhooks.Store.Ecto.{Database, Retention, Rows, SQL, Text}

  @type store :: Store.Ecto.handle()

  @columns Rows.webhook()
  @names SQL.names(@columns)
  # Parameter 1 is the node's clock. Nodes compare the times that they read with their own
  # clock, and write them again.
  @values SQL.values(@columns, 2)
  @written SQL.written(@columns)
  @shown SQL.shown(@columns)

  # An insert waits for the other inserts of the same site, and counts after that. A
  # statement that counts and inserts at once would count the rows of before it waited.
  @lock "SELECT pg_advisory_xact_lock($1)"
  @insert """
  WITH #{SQL.clock(1)}
  INSERT INTO PREFIX.webhooks (#{@names})
  SELECT #{@written} FROM (SELECT #{@values}) AS given
  WHERE (SELECT count(*) FROM PREFIX.webhooks AS other WHERE other.site_id = given.site_id)
    < $#{length(@columns) + 2}
  RETURNING 1
  """

  @spec insert_webhook(store(), Webhook.t()) :: :ok | {:error, term()}
  def insert_webhook(store, %Webhook{} = webhook) do
    with {:ok, [row]} <- Database.encode([webhook], &Rows.from_webhook(&1, store.vault)),
         {:ok, :ok} <- insert_row(store, webhook.site_id, row) do
      :ok
    else
      {:error, {:postgres, :unique_violation, _constraint}} -> {:error, :already_exists}
      {:error, {:postgres, :foreign_key_violation, _constraint}} -> {:error, :site_not_found}
      {:error, _reason} = error -> error
    end
  end

  defp insert_row(store, site_id, row) do
    params = [store.clock.() | row] ++ [store.webhooks_per_site_max]

    Database.transaction(store, fn ->
      Database.query!(store, :lock_site, @lock, [lock_key(store, site_id)])

      case Database.query!(store, nil, @insert, params) do
        [[1]] -> :ok
        [] -> store.repo.rollback(:limit_reached)
      end
    end)
  end

  # Advisory locks belong to the whole database. A key that something else uses as well
  # costs a wait, no more.
  defp lock_key(store, site_id) do
    <<key::signed-64, _rest::binary>> =
      :crypto.hash(:sha256, ["plausible_webhooks site ", store.prefix, " ", to_string(site_id)])

    key
  end

  @kept ~w(id site_id inserted_at_ms version)
  @set for {name, _type} <- @columns, name not in @kept, do: "#{name} = given.#{name}, "

  # Both parts see the rows of before the statement.
  @update """
  WITH #{SQL.clock(1)},
  given AS (SELECT #{@written} FROM (SELECT #{@values}) AS shown),
  updated AS (
    UPDATE PREFIX.webhooks AS webhook SET #{@set} version = webhook.version + 1
    FROM given
    WHERE webhook.id = given.id AND webhook.site_id = given.site_id
      AND webhook.version = given.version
    RETURNING webhook.version, webhook.inserted_at_ms)
  SELECT site_id, updated.version, #{SQL.to_node("updated.inserted_at_ms")}
  FROM PREFIX.webhooks AS webhook LEFT JOIN updated ON true
  WHERE id = (SELECT id FROM given)
  """

  @spec update_webhook(store(), Webhook.t()) :: {:ok, Webhook.t()} | {:error, term()}
  def update_webhook(store, %Webhook{} = webhook) do
    written =
      with {:ok, [row]} <- Database.encode([webhook], &Rows.from_webhook(&1, store.vault)),
           do: Database.query(store, nil, @update, [store.clock.() | row])

    case written do
      {:ok, [[_site_id, version, inserted_at_ms]]} when is_integer(version) ->
        {:ok, %{webhook | version: version, inserted_at_ms: inserted_at_ms}}

      {:ok, [[site_id, nil, nil]]} when site_id == webhook.site_id ->
        {:error, :stale}

      {:ok, _none_or_of_another_site} ->
        {:error, :not_found}

      {:error, _reason} = error ->
        error
    end
  end

  # A trigger notes that the log is to be deleted.
  @delete """
  WITH #{SQL.clock(1)}
  DELETE FROM PREFIX.webhooks WHERE id = $2 AND site_id = $3 AND #{SQL.durably()} RETURNING 1
  """

  @spec delete_webhook(store(), integer(), Webhook.id()) :: :ok | {:error, term()}
  def delete_webhook(store, site_id, id) do
    with :ok <- delete(store, site_id, id), do: Retention.delete_log(store, site_id, id)
  end

  @doc "Deletes the webhook, and leaves its log to `Retention`."
  @spec delete(store(), integer(), Webhook.id()) :: :ok | {:error, term()}
  def delete(store, site_id, id),
    do: found(Database.query(store, nil, @delete, [store.clock.(), Text.encode(id), site_id]))

  @select "WITH #{SQL.clock(1)} SELECT #{@shown} FROM PREFIX.webhooks"
  @get @select <> " WHERE id = $2"

  @spec get_webhook(store(), Webhook.id()) :: {:ok, Webhook.t()} | {:error, term()}
  def get_webhook(store, id) do
    with {:ok, webhooks} <- select(store, @get, [Text.encode(id)]),
         do: if(webhooks == [], do: {:error, :not_found}, else: {:ok, hd(webhooks)})
  end

  @some @select <> " WHERE id = ANY($2::text[])"

  @spec get_webhooks(store(), [Webhook.id()]) :: {:ok, [Webhook.t()]} | {:error, term()}
  def get_webhooks(store, ids), do: select(store, @some, [Enum.map(ids, &Text.encode/1)])

  @list @select <> " WHERE site_id = $2 ORDER BY webhooks.inserted_at_ms, id"

  @spec list_webhooks(store(), integer()) :: {:ok, [Webhook.t()]} | {:error, term()}
  def list_webhooks(store, site_id), do: select(store, @list, [site_id])

  @all @select <> " ORDER BY webhooks.inserted_at_ms, id"

  @spec all_webhooks(store()) :: {:ok, [Webhook.t()]} | {:error, term()}
  def all_webhooks(store), do: select(store, @all, [])

  defp select(store, sql, params) do
    with {:ok, rows} <- Database.query(store, nil, sql, [store.clock.() | params]),
         do: Rows.to_webhooks(rows, store.vault)
  end

  @put_health """
  WITH #{SQL.clock(1)}
  UPDATE PREFIX.webhooks SET failing_since_ms = #{SQL.to_database("$3::bigint")}
  WHERE id = $2 RETURNING 1
  """
  @exists "SELECT 1 FROM PREFIX.webhooks WHERE id = $1"

  @spec put_health(store(), Webhook.id(), map()) :: :ok | {:error, term()}
  def put_health(store, id, %{failing_since_ms: since_ms}),
    do:
      found(Database.query(store, nil, @put_health, [store.clock.(), Text.encode(id), since_ms]))

  def put_health(store, id, %{}),
    do: found(Database.query(store, nil, @exists, [Text.encode(id)]))

  defp found({:ok, [[1]]}), do: :ok
  defp found({:ok, []}), do: {:error, :not_found}
  defp found({:error, _reason} = error), do: error

  # --- traffic alerts

  @alert_columns Rows.alert_state()
  @alert_names SQL.names(@alert_columns)

  @alerts """
  WITH #{SQL.clock(1)}
  SELECT #{SQL.shown(@alert_columns)} FROM PREFIX.webhook_alert_states
  WHERE webhook_id = ANY($2::text[]) ORDER BY webhook_id, kind
  """

  @spec alert_states(store(), [Webhook.id()]) :: {:ok, [Store.alert_state()]} | {:error, term()}
  def alert_states(store, ids) do
    params = [store.clock.(), Enum.map(ids, &Text.encode/1)]
    Database.all(store, @alerts, params, &Rows.to_alert_state/1)
  end

  @put_alert """
  WITH #{SQL.clock(1)}
  INSERT INTO PREFIX.webhook_alert_states (#{@alert_names})
  SELECT #{SQL.written(@alert_columns)} FROM (SELECT #{SQL.values(@alert_columns, 2)}) AS given
  ON CONFLICT (webhook_id, kind) DO UPDATE SET
    #{Enum.map_join(@alert_columns, ", ", fn {name, _type} -> "#{name} = excluded.#{name}" end)}
  """

  @spec put_alert_state(store(), Store.alert_state()) :: :ok | {:error, term()}
  def put_alert_state(store, state) do
    params = [store.clock.() | Rows.from_alert_state(state)]

    with {:error, {:postgres, :foreign_key_violation, _constraint}} <-
           Database.run(store, nil, @put_alert, params),
         do: {:error, :not_found}
  end
end
