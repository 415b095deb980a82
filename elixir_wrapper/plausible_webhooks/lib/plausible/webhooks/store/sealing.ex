defmodule Plausible.Webhooks.Store.Sealing do
  @moduledoc false
  # Checks a store's keys, and encrypts again with the first one. Every key of the ring
  # decrypts, the first one encrypts. A start only checks and writes nothing, so that nodes
  # with different rings can run side by side. The mark tells wrong keys from right ones while
  # there is no webhook yet.

  alias Plausible.Webhooks.{Vault, Webhook}
  alias Plausible.Webhooks.Webhook.Sealed

  @context "vault_check"

  @spec mark(Vault.t()) :: binary()
  def mark(vault), do: Vault.encrypt(vault, "", @context)

  @doc """
  The vault, or the vault of a key file. A missing file is made only if `held?` says that
  nothing is encrypted yet, because a new key would not decrypt it.
  """
  @spec vault(Vault.t() | {:file, Path.t()}, (() -> {:ok, boolean()} | {:error, term()})) ::
          {:ok, Vault.t()} | {:error, term()}
  def vault(%Vault{} = vault, _held?), do: {:ok, vault}

  def vault({:file, path}, held?) do
    with {:error, {:key_file, _path, :enoent}} = missing <- Vault.load_file(path) do
      case held?.() do
        {:ok, false} -> Vault.create_file(path)
        {:ok, true} -> missing
        {:error, _reason} = error -> error
      end
    end
  end

  @doc "Whether the vault can decrypt the mark (if there is one) and every webhook."
  @spec check(binary() | nil, [{Webhook.id(), binary()}], Vault.t()) :: :ok | {:error, term()}
  def check(mark, webhooks, vault) do
    with :ok <- check_mark(mark, vault) do
      Enum.find_value(webhooks, :ok, fn {id, sealed} ->
        with {:ok, _plain} <- open(id, sealed, vault), do: nil
      end)
    end
  end

  defp check_mark(nil, _vault), do: :ok

  defp check_mark(mark, vault) do
    case Vault.decrypt(vault, mark, @context) do
      {:ok, _plain} -> :ok
      {:error, reason} -> {:error, {:wrong_vault_keys, reason}}
    end
  end

  @doc "The webhooks as `[id, old, new]`, encrypted with the first key."
  @spec anew([{Webhook.id(), binary()}], Vault.t()) :: {:ok, [[term()]]} | {:error, term()}
  def anew(webhooks, vault) do
    Enum.reduce_while(webhooks, {:ok, []}, fn {id, sealed}, {:ok, rows} ->
      case open(id, sealed, vault) do
        {:ok, plain} ->
          new = Vault.encrypt(vault, plain, Sealed.context(id))
          {:cont, {:ok, [[id, sealed, new] | rows]}}

        error ->
          {:halt, error}
      end
    end)
  end

  defp open(id, sealed, vault) do
    with {:error, reason} <- Vault.decrypt(vault, sealed, Sealed.context(id)),
         do: {:error, {:unreadable_webhook, id, reason}}
  end
end
