defmodule Plausible.Webhooks.Store.SQLite.Webhooks do
  @moduledoc false
  # Webhooks and their alert states. URL, headers and secrets are one sealed
  # binary, bound to the webhook's id; of the URL only the host is in clear.

  alias Plausible.Webhooks.{Vault, Webhook}
  alias Plausible.Webhooks.Webhook.Sealed
  alias Plausible.Webhooks.Store.SQLite.{Connection, Rows}

  @columns [
    {"id", :text},
    {"site_id", :int},
    {"name", :text},
    {"host", :text},
    {"sealed", :blob},
    {"enabled", :int},
    {"events", :text},
    {"goals", :text},
    {"spike_threshold", :int},
    {"drop_threshold", :int},
    {"traffic_min_interval_s", :int},
    {"disabled_reason", :text},
    {"disabled_at_ms", :int},
    {"failing_since_ms", :int},
    {"version", :int},
    {"inserted_at_ms", :int},
    {"updated_at_ms", :int}
  ]
  @names Rows.names(@columns)

  @disabled_reasons %{"gone" => :gone, "failing" => :failing}
  @kinds %{spike: 0, drop: 1}
  @states %{armed: 0, firing: 1}

  def insert(handle, %Webhook{} = webhook) do
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

  def update(handle, %Webhook{} = webhook) do
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

  def get(handle, id) do
    statement = {"SELECT #{@names} FROM webhooks WHERE id = ?1", [id]}

    with {:ok, [rows]} <- Connection.read(handle.connection, [statement]),
         {:ok, webhooks} <- decode(rows, handle.vault) do
      case webhooks do
        [webhook] -> {:ok, webhook}
        [] -> {:error, :not_found}
      end
    end
  end

  def list(handle, site_id) do
    statement = "SELECT #{@names} FROM webhooks WHERE site_id = ?1 ORDER BY inserted_at_ms, rowid"

    select(handle, {statement, [site_id]})
  end

  def all(handle),
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
    [
      webhook.id,
      webhook.site_id,
      webhook.name,
      Webhook.host(webhook),
      Sealed.seal(vault, webhook),
      webhook.enabled,
      Enum.join(webhook.events, ","),
      if(webhook.goals != :all, do: Enum.join(webhook.goals, ",")),
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
    {id, site_id, name, _host, sealed, enabled, events, goals, spike, drop, interval_s,
     disabled_reason, disabled_at_ms, failing_since_ms, version, inserted_at_ms,
     updated_at_ms} = row

    case Sealed.open(vault, sealed, id) do
      {:ok, %{url: url, headers: headers, secrets: secrets}} ->
        {:ok,
         %Webhook{
           id: id,
           site_id: site_id,
           name: name,
           url: url,
           enabled: enabled == 1,
           events: String.split(events, ",", trim: true),
           goals: goals(goals),
           spike_threshold: Webhook.threshold_from_store(spike),
           drop_threshold: Webhook.threshold_from_store(drop),
           traffic_min_interval_s: interval_s,
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

  defp goals(nil), do: :all
  defp goals(ids), do: ids |> String.split(",", trim: true) |> Enum.map(&String.to_integer/1)

  # --- keys

  @check "vault_check"

  @doc "Is there something that was encrypted already? Then a key file may not be made anew."
  def sealed?(connection) do
    with {:ok, [[{count}]]} <-
           Connection.read(connection, [{"SELECT count(*) FROM vault_check", []}]),
         do: {:ok, count > 0}
  end

  @doc """
  Makes sure that the vault's keys are those of the file, and encrypts anew what
  an older key has encrypted, so that the older key may be dropped.
  """
  def check_vault(connection, vault) do
    statements = [
      {"SELECT sealed FROM vault_check", []},
      {"SELECT id, sealed FROM webhooks", []}
    ]

    with {:ok, [check, webhooks]} <- Connection.read(connection, statements),
         :ok <- check(check, vault),
         {:ok, old} <- open_old(webhooks, vault) do
      if old == [] and current?(check, vault) do
        :ok
      else
        with {:ok, _results} <- Connection.write(connection, reseal(old, vault)), do: :ok
      end
    end
  end

  defp check([], _vault), do: :ok

  defp check([{sealed}], vault) do
    case Vault.decrypt(vault, sealed, @check) do
      {:ok, _plain} -> :ok
      {:error, reason} -> {:error, {:wrong_vault_keys, reason}}
    end
  end

  defp current?([], _vault), do: false
  defp current?([{sealed}], vault), do: Vault.current?(vault, sealed)

  defp open_old(webhooks, vault) do
    Enum.reduce_while(webhooks, {:ok, []}, fn {id, sealed}, {:ok, opened} ->
      with false <- Vault.current?(vault, sealed),
           {:ok, plain} <- Vault.decrypt(vault, sealed, Sealed.context(id)) do
        {:cont, {:ok, [{id, sealed, plain} | opened]}}
      else
        true -> {:cont, {:ok, opened}}
        {:error, reason} -> {:halt, {:error, {:unreadable_webhook, id, reason}}}
      end
    end)
  end

  # Only where it is still what was read: it may have been changed in between.
  defp reseal(old, vault) do
    columns = [{"id", :text}, {"old", :blob}, {"new", :blob}]

    update = """
    UPDATE webhooks SET sealed = given.new FROM (#{Rows.select(columns)}) AS given
    WHERE webhooks.id = given.id AND webhooks.sealed = given.old
    """

    rows =
      for {id, sealed, plain} <- old,
          do: [id, sealed, Vault.encrypt(vault, plain, Sealed.context(id))]

    mark = "INSERT OR REPLACE INTO vault_check (id, sealed) VALUES (1, ?1)"
    check = {mark, [{:blob, Vault.encrypt(vault, "", @check)}]}
    for(params <- Rows.pack(rows, columns), do: {update, params}) ++ [check]
  end

  # --- traffic alerts

  def alert_states(handle, ids) do
    columns = [{"id", :text}]

    # Distinct first: an id given twice must not come twice.
    statement = """
    SELECT webhook_id, kind, state, alert_id, visitors, threshold, changed_at_ms,
      notified_at_ms, seen_at_ms
    FROM alert_states WHERE webhook_id IN (#{Rows.select(columns)})
    ORDER BY webhook_id, kind
    """

    statements =
      for params <- ids |> Enum.uniq() |> Enum.map(&[&1]) |> Rows.pack(columns),
          do: {statement, params}

    with {:ok, results} <- Connection.read(handle.connection, statements) do
      {:ok, results |> Enum.concat() |> Enum.map(&alert_state/1)}
    end
  end

  defp alert_state(
         {webhook_id, kind, state, alert_id, visitors, threshold, changed, notified, seen}
       ) do
    %{
      webhook_id: webhook_id,
      kind: if(kind == @kinds.spike, do: :spike, else: :drop),
      state: if(state == @states.armed, do: :armed, else: :firing),
      alert_id: alert_id,
      visitors: visitors,
      threshold: threshold,
      changed_at_ms: changed,
      notified_at_ms: notified,
      seen_at_ms: seen
    }
  end

  def put_alert_state(handle, state) do
    columns = [
      {"webhook_id", :text},
      {"kind", :int},
      {"state", :int},
      {"alert_id", :text},
      {"visitors", :int},
      {"threshold", :int},
      {"changed_at_ms", :int},
      {"notified_at_ms", :int},
      {"seen_at_ms", :int}
    ]

    row = [
      state.webhook_id,
      Map.fetch!(@kinds, state.kind),
      Map.fetch!(@states, state.state),
      state.alert_id,
      state.visitors,
      state.threshold,
      state.changed_at_ms,
      state.notified_at_ms,
      state.seen_at_ms
    ]

    [params] = Rows.pack([row], columns)

    statement =
      "INSERT OR REPLACE INTO alert_states (#{Rows.names(columns)}) #{Rows.select(columns)}"

    case Connection.write(handle.connection, [{statement, params}]) do
      {:ok, _results} -> :ok
      {:error, {:sqlite, 19, "FOREIGN KEY" <> _rest}} -> {:error, :not_found}
      {:error, _reason} = error -> error
    end
  end
end
