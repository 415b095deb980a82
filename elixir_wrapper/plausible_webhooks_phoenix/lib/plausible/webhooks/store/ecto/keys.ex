defmodule Plausible.Webhooks.Store.Ecto.Keys do
  @moduledoc false
  # Checks at the start that the vault has the keys of the tables, and encrypts anew on demand:
  # see `Plausible.Webhooks.Store.Sealing`.

  alias Plausible.Webhooks.{Store, Vault}
  alias Plausible.Webhooks.Store.Ecto.{Database, SQL, Text}
  alias Plausible.Webhooks.Store.Sealing

  # Written by the first node that starts.
  @mark """
  INSERT INTO PREFIX.webhook_vault_checks (id, sealed) VALUES (1, $1) ON CONFLICT DO NOTHING
  """

  @doc "Whether something is encrypted already."
  @spec held?(Store.Ecto.handle()) :: {:ok, boolean()} | {:error, term()}
  def held?(store) do
    with {:ok, [[held?]]} <-
           Database.query(store, nil, "SELECT EXISTS (TABLE PREFIX.webhook_vault_checks)", []),
         do: {:ok, held?}
  end

  @spec check(Store.Ecto.handle()) :: :ok | {:error, term()}
  def check(store) do
    with :ok <- Database.run(store, nil, @mark, [Sealing.mark(store.vault)]),
         {:ok, [[mark]]} <-
           Database.query(store, nil, "SELECT sealed FROM PREFIX.webhook_vault_checks", []),
         {:ok, webhooks} <- sealed(store, "ORDER BY id", []),
         do: Sealing.check(mark, webhooks, store.vault)
  end

  defp sealed(store, rest, params) do
    Database.all(store, "SELECT id, sealed FROM PREFIX.webhooks #{rest}", params, fn [id, sealed] ->
      {Text.decode(id), sealed}
    end)
  end

  @old "WHERE substring(sealed FROM 1 FOR 5) <> $1"

  # Only if the row is still the one that was read.
  @reseal """
  WITH mark AS (UPDATE PREFIX.webhook_vault_checks SET sealed = $4)
  UPDATE PREFIX.webhooks AS webhook SET sealed = given.new
  FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS given (id, old, new)
  WHERE webhook.id = given.id AND webhook.sealed = given.old RETURNING 1
  """

  @spec rekey(Store.Ecto.handle(), pos_integer()) ::
          {:ok, %{rewritten: non_neg_integer(), left: non_neg_integer()}} | {:error, term()}
  def rekey(%{vault: vault} = store, limit) do
    prefix = Vault.prefix(vault)

    with {:ok, old} <- sealed(store, @old <> " ORDER BY id LIMIT $2", [prefix, limit]),
         {:ok, rows} <- Sealing.anew(old, vault),
         rows = for([id | sealed] <- rows, do: [Text.encode(id) | sealed]),
         params = SQL.columns(rows, 3) ++ [Sealing.mark(vault)],
         {:ok, written} <- Database.query(store, nil, @reseal, params),
         {:ok, [[left]]} <-
           Database.query(store, nil, "SELECT count(*) FROM PREFIX.webhooks " <> @old, [prefix]),
         do: {:ok, %{rewritten: length(written), left: left}}
  end
end
