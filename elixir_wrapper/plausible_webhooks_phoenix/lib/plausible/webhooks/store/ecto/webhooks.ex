defmodule Plausible.Webhooks.Store.Ecto.Webhooks do
  @moduledoc false
  # Webhooks and their alert states. URL, headers and secrets are one sealed
  # binary, bound to the webhook's id; of the URL only the host is in clear.

  alias Plausible.Webhooks.{Store, Webhook}
  alias Plausible.Webhooks.Store.Ecto.{Database, SQL, Text}
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
  # Parameter 1 is the node's clock.
  @values @columns
          |> Enum.with_index(2)
          |> Enum.map_join(", ", fn {{name, type}, at} -> "$#{at}::#{type} AS #{name}" end)

  # What a node reads it compares with its own clock, and writes again.
  @times ~w(disabled_at_ms failing_since_ms inserted_at_ms updated_at_ms)
  @written Enum.map_join(@columns, ", ", fn {name, _type} ->
             if name in @times, do: SQL.to_database(name) <> " AS #{name}", else: name
           end)
  @shown Enum.map_join(@columns, ", ", fn {name, _type} ->
           if name in @times, do: SQL.to_node(name), else: name
         end)

  @disabled_reasons %{"gone" => :gone, "failing" => :failing}
  @kinds %{"spike" => :spike, "drop" => :drop}
  @alert_states %{"armed" => :armed, "firing" => :firing}

  # Whoever inserts for a site waits for the others that do, and only then looks
  # how many there are: a statement that counts and inserts at once counts what
  # was there before it waited.
  @lock "SELECT pg_advisory_xact_lock($1)"
  @insert """
  WITH #{SQL.clock(1)}
  INSERT INTO PREFIX.webhooks (#{@names})
  SELECT #{@written} FROM (SELECT #{@values}) AS given
  WHERE (SELECT count(*) FROM PREFIX.webhooks AS other WHERE other.site_id = given.site_id)
    < $#{length(@columns) + 2}
  RETURNING 1
  """

  @spec insert(store(), Webhook.t()) :: :ok | {:error, term()}
  def insert(store, %Webhook{} = webhook) do
    with {:ok, [row]} <- Database.encode([webhook], &row(store.vault, &1)),
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

  # Advisory locks are the whole database's. A key that somebody else uses as well
  # only means waiting.
  defp lock_key(store, site_id) do
    <<key::signed-64, _rest::binary>> =
      :crypto.hash(:sha256, ["plausible_webhooks site ", store.prefix, " ", to_string(site_id)])

    key
  end

  @kept ~w(id site_id inserted_at_ms version)
  @set for {name, _type} <- @columns, name not in @kept, do: "#{name} = given.#{name}, "

  # Both parts see what was there before.
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

  @spec update(store(), Webhook.t()) :: {:ok, Webhook.t()} | {:error, term()}
  def update(store, %Webhook{} = webhook) do
    written =
      with {:ok, [row]} <- Database.encode([webhook], &row(store.vault, &1)),
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

  # A trigger notes that its log is to be deleted.
  @delete """
  WITH #{SQL.clock(1)}
  DELETE FROM PREFIX.webhooks WHERE id = $2 AND site_id = $3 AND #{SQL.durably()} RETURNING 1
  """

  @doc "Removes the webhook; its log is another matter."
  @spec delete(store(), integer(), Webhook.id()) :: :ok | {:error, term()}
  def delete(store, site_id, id),
    do: found(Database.query(store, nil, @delete, [store.clock.(), Text.encode(id), site_id]))

  @select "WITH #{SQL.clock(1)} SELECT #{@shown} FROM PREFIX.webhooks"
  @get @select <> " WHERE id = $2"

  @spec get(store(), Webhook.id()) :: {:ok, Webhook.t()} | {:error, term()}
  def get(store, id) do
    case select(store, @get, [Text.encode(id)]) do
      {:ok, [webhook]} -> {:ok, webhook}
      {:ok, []} -> {:error, :not_found}
      {:error, _reason} = error -> error
    end
  end

  @list @select <> " WHERE site_id = $2 ORDER BY webhooks.inserted_at_ms, id"

  @spec list(store(), integer()) :: {:ok, [Webhook.t()]} | {:error, term()}
  def list(store, site_id), do: select(store, @list, [site_id])

  @all @select <> " ORDER BY webhooks.inserted_at_ms, id"

  @spec all(store()) :: {:ok, [Webhook.t()]} | {:error, term()}
  def all(store), do: select(store, @all, [])

  defp select(store, sql, params) do
    with {:ok, rows} <- Database.query(store, nil, sql, [store.clock.() | params]),
         do: decode(rows, store.vault)
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
      Webhook.threshold_to_store(webhook.spike_threshold),
      Webhook.threshold_to_store(webhook.drop_threshold),
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
           spike_threshold: Webhook.threshold_from_store(spike_threshold),
           drop_threshold: Webhook.threshold_from_store(drop_threshold),
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
  WITH #{SQL.clock(1)}
  SELECT webhook_id, kind, state, alert_id, visitors, threshold,
    #{SQL.to_node("changed_at_ms")}, #{SQL.to_node("notified_at_ms")},
    #{SQL.to_node("seen_at_ms")}
  FROM PREFIX.webhook_alert_states WHERE webhook_id = ANY($2::text[])
  ORDER BY webhook_id, kind
  """

  @spec alert_states(store(), [Webhook.id()]) :: {:ok, [Store.alert_state()]} | {:error, term()}
  def alert_states(store, ids) do
    params = [store.clock.(), Enum.map(ids, &Text.encode/1)]

    with {:ok, rows} <- Database.query(store, nil, @alerts, params) do
      {:ok, Enum.map(rows, &alert_state/1)}
    end
  end

  defp alert_state([
         webhook_id,
         kind,
         state,
         alert_id,
         visitors,
         threshold,
         changed,
         notified,
         seen
       ]) do
    %{
      webhook_id: Text.decode(webhook_id),
      kind: Map.fetch!(@kinds, kind),
      state: Map.fetch!(@alert_states, state),
      alert_id: Text.decode(alert_id),
      visitors: visitors,
      threshold: threshold,
      changed_at_ms: changed,
      notified_at_ms: notified,
      seen_at_ms: seen
    }
  end

  @put_alert """
  WITH #{SQL.clock(1)}
  INSERT INTO PREFIX.webhook_alert_states
    (webhook_id, kind, state, alert_id, visitors, threshold, changed_at_ms, notified_at_ms,
     seen_at_ms)
  VALUES ($2, $3, $4, $5, $6, $7, #{SQL.to_database("$8::bigint")},
    #{SQL.to_database("$9::bigint")}, #{SQL.to_database("$10::bigint")})
  ON CONFLICT (webhook_id, kind) DO UPDATE SET
    state = excluded.state, alert_id = excluded.alert_id, visitors = excluded.visitors,
    threshold = excluded.threshold, changed_at_ms = excluded.changed_at_ms,
    notified_at_ms = excluded.notified_at_ms, seen_at_ms = excluded.seen_at_ms
  """

  @spec put_alert_state(store(), Store.alert_state()) :: :ok | {:error, term()}
  def put_alert_state(store, state) do
    params = [
      store.clock.(),
      Text.encode(state.webhook_id),
      Atom.to_string(state.kind),
      Atom.to_string(state.state),
      Text.encode(state.alert_id),
      state.visitors,
      state.threshold,
      state.changed_at_ms,
      state.notified_at_ms,
      state.seen_at_ms
    ]

    case Database.query(store, nil, @put_alert, params) do
      {:ok, _rows} -> :ok
      {:error, {:postgres, :foreign_key_violation, _constraint}} -> {:error, :not_found}
      {:error, _reason} = error -> error
    end
  end
end
