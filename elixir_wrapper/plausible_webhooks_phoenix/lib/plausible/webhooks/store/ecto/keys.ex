defmodule Plausible.Webhooks.Store.Ecto.Keys do
  @moduledoc false
  # Checks at the start that the vault has the keys of the tables. Encrypts again what an
  # older key has encrypted, so that the older key can be dropped.

  alias Plausible.Webhooks.{Store, Vault}
  alias Plausible.Webhooks.Store.Ecto.{Database, SQL, Text}
  alias Plausible.Webhooks.Webhook.Sealed

  @context "vault_check"

  @spec check(Store.Ecto.handle()) :: :ok | {:error, term()}
  def check(store) do
    with :ok <- mark(store),
         {:ok, rows} <-
           Database.query(store, nil, "SELECT sealed FROM PREFIX.webhook_vault_checks", []),
         :ok <- check_mark(rows, store.vault),
         {:ok, webhooks} <-
           Database.query(store, nil, "SELECT id, sealed FROM PREFIX.webhooks ORDER BY id", []),
         {:ok, old} <- open_old(webhooks, store.vault),
         do: reseal(store, rows, old)
  end

  # Written by the first node that starts.
  defp mark(store) do
    sql =
      "INSERT INTO PREFIX.webhook_vault_checks (id, sealed) VALUES (1, $1) ON CONFLICT DO NOTHING"

    Database.run(store, nil, sql, [sealed_mark(store.vault)])
  end

  defp sealed_mark(vault), do: Vault.encrypt(vault, "", @context)

  defp check_mark([[sealed]], vault) do
    case Vault.decrypt(vault, sealed, @context) do
      {:ok, _plain} -> :ok
      {:error, reason} -> {:error, {:wrong_vault_keys, reason}}
    end
  end

  defp open_old(webhooks, vault) do
    Enum.reduce_while(webhooks, {:ok, []}, fn [id, sealed], {:ok, opened} ->
      with false <- Vault.current?(vault, sealed),
           {:ok, plain} <- Vault.decrypt(vault, sealed, Sealed.context(Text.decode(id))) do
        {:cont, {:ok, [[id, sealed, plain] | opened]}}
      else
        true -> {:cont, {:ok, opened}}
        {:error, reason} -> {:halt, {:error, {:unreadable_webhook, Text.decode(id), reason}}}
      end
    end)
  end

  # Only if the row is still the one that was read.
  defp reseal(store, [[mark]], old) do
    webhooks = """
    UPDATE PREFIX.webhooks AS webhook SET sealed = given.new
    FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS given (id, old, new)
    WHERE webhook.id = given.id AND webhook.sealed = given.old
    """

    checks = "UPDATE PREFIX.webhook_vault_checks SET sealed = $1 WHERE sealed = $2"

    rows =
      for [id, sealed, plain] <- Enum.reverse(old) do
        [id, sealed, Vault.encrypt(store.vault, plain, Sealed.context(Text.decode(id)))]
      end

    with :ok <- Database.run(store, nil, webhooks, SQL.columns(rows, 3)) do
      if Vault.current?(store.vault, mark),
        do: :ok,
        else: Database.run(store, nil, checks, [sealed_mark(store.vault), mark])
    end
  end
end
