defmodule Plausible.Webhooks.Store.Ecto.Audit do
  @moduledoc false
  # Who did what to a webhook, and when.

  alias Plausible.Webhooks.{Store, Webhook}
  alias Plausible.Webhooks.Store.Ecto.{Database, Rows, SQL, Text}

  @type store :: Store.Ecto.handle()

  @columns Rows.audit()

  @add """
  WITH #{SQL.clock(1)}
  INSERT INTO PREFIX.webhook_audit (#{SQL.names(@columns)})
  SELECT #{SQL.written(@columns)} FROM (SELECT #{SQL.values(@columns, 2)}) AS given
  WHERE #{SQL.durably()}
  """

  @spec add_audit(store(), Store.audit()) :: :ok | {:error, term()}
  def add_audit(store, entry),
    do: Database.run(store, nil, @add, [store.clock.() | Rows.from_audit(entry)])

  @list """
  WITH #{SQL.clock(1)}
  SELECT #{SQL.shown(@columns)} FROM PREFIX.webhook_audit WHERE webhook_id = $2 AND site_id = $3
  ORDER BY webhook_audit.at_ms DESC, id DESC LIMIT $4
  """

  @spec audit(store(), integer(), Webhook.id(), pos_integer()) ::
          {:ok, [Store.audit()]} | {:error, term()}
  def audit(store, site_id, webhook_id, limit) do
    params = [store.clock.(), Text.encode(webhook_id), site_id, limit]
    Database.all(store, @list, params, &Rows.to_audit/1)
  end
end
