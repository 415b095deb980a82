defmodule Plausible.Webhooks.Store.Ecto.Webhooks do
  @moduledoc false
  # Webhooks and their alert states. URL, headers and secrets are one sealed
  # binary, bound to the webhook's id; of the URL only the host is in clear.

  alias Plausible.Webhooks.{Store, Webhook}
  alias Plausible.Webhooks.Store.Ecto.{Database, Text}
  alias Plausible.Webhooks.Webhook.Sealed

  @type store :: Store.Ecto.handle()

  @columns [
    {"id", "text"},
    {"site_id", "bigint"},
    {"name", "text"},
    {"host", "text"},
    {"sealed", "bytea"},
    {"enabled", "boolean"},
    {"events", "text[]"},
    {"goals", "bigint[]"},
    {"spike_threshold", "bigint"},
    {"drop_threshold", "bigint"},
    {"traffic_min_interval_s", "bigint"},
    {"disabled_reason", "text"},
    {"disabled_at_ms", "bigint"},
    {"failing_since_ms", "bigint"},
    {"version", "bigint"},
    {"inserted_at_ms", "bigint"},
    {"updated_at_ms", "bigint"}
  ]
  @names Enum.map_join(@columns, ", ", &elem(&1, 0))
  @values @columns
          |> Enum.with_index(1)
          |> Enum.map_join(", ", fn {{name, type}, at} -> "$#{at}::#{type} AS #{name}" end)

  @disabled_reasons %{"gone" => :gone, "failing" => :failing}
  @kinds %{"spike" => :spike, "drop" => :drop}
  @alert_states %{"armed" => :armed, "firing" => :firing}

  # Whoever inserts for a site waits for the others that do, and only then looks
  # how many there are: a statement that counts and inserts at once counts what
  # was there before it waited.
  @lock "SELECT pg_advisory_xact_lock($1)"
  @insert """
  INSERT INTO PREFIX.webhooks (#{@names})
  SELECT #{@names} FROM (SELECT #{@values}) AS given
  WHERE (SELECT count(*) FROM PREFIX.webhooks WHERE site_id = $2) < $#{length(@columns) + 1}
  RETURNING 1
  """

  @spec insert(store(), Webhook.t()) :: :ok | {:error, term()}
  def insert(store, %Webhook{} = webhook) do
    params = row(store.vault, webhook) ++ [store.webhooks_per_site_max]

    Database.transaction(store, fn ->
      Database.query!(store, :lock_site, @lock, [lock_key(store, webhook.site_id)])

      case Database.query!(store, nil, @insert, params) do
        [[1]] -> :ok
        [] -> store.repo.rollback(:limit_reached)
      end
    end)
    |> case do
      {:ok, :ok} -> :ok
      {:error, {:postgres, :unique_violation, _constraint}} -> {:error, :already_exists}
      {:error, {:postgres, :foreign_key_violation, _constraint}} -> {:error, :site_not_found}
      {:error, _reason} = error -> error
    end
  end

  # Advisory locks are the whole database's. A key that somebody else uses as well
  # only means waiting.
  defp lock_key(store, site_id) do
    <<key::signed-64, _rest::binary>> =
      :crypto.hash(:sha256, ["plausible_webhooks site ", store.prefix, " ", to_string(site_id)])

    key
  end

  @kept ~w(id site_id inserted_at_ms version)
  @set for {{name, type}, at} <- Enum.with_index(@columns, 1),
           name not in @kept,
           do: "#{name} = $#{at}::#{type}, "
  @at Map.new(Enum.with_index(@columns, 1), fn {{name, _type}, at} -> {name, at} end)

  # Both parts see what was there before. `inserted_at_ms` keeps its place among
  # the parameters and is not used: a condition that always holds names its type.
  @update """
  WITH updated AS (
    UPDATE PREFIX.webhooks SET #{@set} version = version + 1
    WHERE id = $#{@at["id"]} AND site_id = $#{@at["site_id"]} AND version = $#{@at["version"]}
      AND $#{@at["inserted_at_ms"]}::bigint IS NOT NULL
    RETURNING version, inserted_at_ms)
  SELECT site_id, updated.version, updated.inserted_at_ms
  FROM PREFIX.webhooks AS webhook LEFT JOIN updated ON true WHERE id = $#{@at["id"]}
  """

  @spec update(store(), Webhook.t()) :: {:ok, Webhook.t()} | {:error, term()}
  def update(store, %Webhook{} = webhook) do
    case Database.query(store, nil, @update, row(store.vault, webhook)) do
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

  # A trigger notes that its log is to be deleted.
  @delete "DELETE FROM PREFIX.webhooks WHERE id = $1 AND site_id = $2 RETURNING 1"

  @doc "Removes the webhook; its log is another matter."
  @spec delete(store(), integer(), Webhook.id()) :: :ok | {:error, term()}
  def delete(store, site_id, id),
    do: found(Database.query(store, nil, @delete, [Text.encode(id), site_id]))

  @get "SELECT #{@names} FROM PREFIX.webhooks WHERE id = $1"

  @spec get(store(), Webhook.id()) :: {:ok, Webhook.t()} | {:error, term()}
  def get(store, id) do
    with {:ok, rows} <- Database.query(store, nil, @get, [Text.encode(id)]),
         {:ok, webhooks} <- decode(rows, store.vault) do
      case webhooks do
        [webhook] -> {:ok, webhook}
        [] -> {:error, :not_found}
      end
    end
  end

  @list "SELECT #{@names} FROM PREFIX.webhooks WHERE site_id = $1 ORDER BY inserted_at_ms, id"

  @spec list(store(), integer()) :: {:ok, [Webhook.t()]} | {:error, term()}
  def list(store, site_id), do: select(store, @list, [site_id])

  @all "SELECT #{@names} FROM PREFIX.webhooks ORDER BY inserted_at_ms, id"

  @spec all(store()) :: {:ok, [Webhook.t()]} | {:error, term()}
  def all(store), do: select(store, @all, [])

  defp select(store, sql, params) do
    with {:ok, rows} <- Database.query(store, nil, sql, params), do: decode(rows, store.vault)
  end

  @put_health "UPDATE PREFIX.webhooks SET failing_since_ms = $2 WHERE id = $1 RETURNING 1"
  @exists "SELECT 1 FROM PREFIX.webhooks WHERE id = $1"

  @spec put_health(store(), Webhook.id(), map()) :: :ok | {:error, term()}
  def put_health(store, id, %{failing_since_ms: since_ms}),
    do: found(Database.query(store, nil, @put_health, [Text.encode(id), since_ms]))

  def put_health(store, id, %{}),
    do: found(Database.query(store, nil, @exists, [Text.encode(id)]))

  defp found({:ok, [[1]]}), do: :ok
  defp found({:ok, []}), do: {:error, :not_found}
  defp found({:error, _reason} = error), do: error

  # --- rows

  defp row(vault, webhook) do
    [
      Text.encode(webhook.id),
      webhook.site_id,
      Text.encode(webhook.name),
      Text.encode(Webhook.host(webhook)),
      Sealed.seal(vault, webhook),
      webhook.enabled,
      Enum.map(webhook.events, &Text.encode/1),
      if(webhook.goals != :all, do: webhook.goals),
      webhook.spike_threshold,
      webhook.drop_threshold,
      webhook.traffic_min_interval_s,
      webhook.disabled_reason && Atom.to_string(webhook.disabled_reason),
      webhook.disabled_at_ms,
      webhook.failing_since_ms,
      webhook.version,
      webhook.inserted_at_ms,
      webhook.updated_at_ms
    ]
  end

  defp decode(rows, vault) do
    Enum.reduce_while(rows, {:ok, []}, fn row, {:ok, webhooks} ->
      case webhook(row, vault) do
        {:ok, webhook} -> {:cont, {:ok, [webhook | webhooks]}}
        {:error, _reason} = error -> {:halt, error}
      end
    end)
    |> case do
      {:ok, webhooks} -> {:ok, Enum.reverse(webhooks)}
      {:error, _reason} = error -> error
    end
  end

  defp webhook(row, vault) do
    [
      id,
      site_id,
      name,
      _host,
      sealed,
      enabled,
      events,
      goals,
      spike_threshold,
      drop_threshold,
      traffic_min_interval_s,
      disabled_reason,
      disabled_at_ms,
      failing_since_ms,
      version,
      inserted_at_ms,
      updated_at_ms
    ] = row

    id = Text.decode(id)

    case Sealed.open(vault, sealed, id) do
      {:ok, %{url: url, headers: headers, secrets: secrets}} ->
        {:ok,
         %Webhook{
           id: id,
           site_id: site_id,
           name: Text.decode(name),
           url: url,
           enabled: enabled,
           events: Enum.map(events, &Text.decode/1),
           goals: goals || :all,
           spike_threshold: spike_threshold,
           drop_threshold: drop_threshold,
           traffic_min_interval_s: traffic_min_interval_s,
           headers: headers,
           secrets: secrets,
           disabled_reason: Map.get(@disabled_reasons, disabled_reason),
           disabled_at_ms: disabled_at_ms,
           failing_since_ms: failing_since_ms,
           version: version,
           inserted_at_ms: inserted_at_ms,
           updated_at_ms: updated_at_ms
         }}

      {:error, reason} ->
        {:error, {:unreadable_webhook, id, reason}}
    end
  end

  # --- traffic alerts

  @alerts """
  SELECT webhook_id, kind, state, alert_id, changed_at_ms, notified_at_ms
  FROM PREFIX.webhook_alert_states WHERE webhook_id = ANY($1::text[])
  ORDER BY webhook_id, kind
  """

  @spec alert_states(store(), [Webhook.id()]) :: {:ok, [Store.alert_state()]} | {:error, term()}
  def alert_states(store, ids) do
    with {:ok, rows} <- Database.query(store, nil, @alerts, [Enum.map(ids, &Text.encode/1)]) do
      {:ok,
       for [webhook_id, kind, state, alert_id, changed_at_ms, notified_at_ms] <- rows do
         %{
           webhook_id: Text.decode(webhook_id),
           kind: Map.fetch!(@kinds, kind),
           state: Map.fetch!(@alert_states, state),
           alert_id: Text.decode(alert_id),
           changed_at_ms: changed_at_ms,
           notified_at_ms: notified_at_ms
         }
       end}
    end
  end

  @put_alert """
  INSERT INTO PREFIX.webhook_alert_states
    (webhook_id, kind, state, alert_id, changed_at_ms, notified_at_ms)
  VALUES ($1, $2, $3, $4, $5, $6)
  ON CONFLICT (webhook_id, kind) DO UPDATE SET
    state = excluded.state, alert_id = excluded.alert_id,
    changed_at_ms = excluded.changed_at_ms, notified_at_ms = excluded.notified_at_ms
  """

  @spec put_alert_state(store(), Store.alert_state()) :: :ok | {:error, term()}
  def put_alert_state(store, state) do
    params = [
      Text.encode(state.webhook_id),
      Atom.to_string(state.kind),
      Atom.to_string(state.state),
      Text.encode(state.alert_id),
      state.changed_at_ms,
      state.notified_at_ms
    ]

    case Database.query(store, nil, @put_alert, params) do
      {:ok, _rows} -> :ok
      {:error, {:postgres, :foreign_key_violation, _constraint}} -> {:error, :not_found}
      {:error, _reason} = error -> error
    end
  end
end
