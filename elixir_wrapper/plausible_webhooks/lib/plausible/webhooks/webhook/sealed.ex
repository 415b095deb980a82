defmodule Plausible.Webhooks.Webhook.Sealed do
  @moduledoc """
  The part of a webhook that no store may hold in clear text (URL, headers, secrets), as one
  encrypted binary. It is bound to the webhook's id, so it cannot be moved to another row.
  """

  alias Plausible.Webhooks.{Vault, Webhook}

  @format 1

  @doc "The webhook's secret part, encrypted."
  @spec seal(Vault.t(), Webhook.t()) :: binary()
  def seal(vault, %Webhook{id: id, url: url, headers: headers, secrets: secrets}) do
    # No atoms but nil: a VM that has just started refuses those that it does not know yet.
    secrets = for s <- secrets, do: {s.key, s.created_at_ms, s.expires_at_ms}
    opened = :erlang.term_to_binary({@format, url, headers, secrets})
    Vault.encrypt(vault, opened, context(id))
  end

  @doc "The reverse: `url`, `headers` and `secrets` of the webhook with this id."
  @spec open(Vault.t(), binary(), Webhook.id()) ::
          {:ok, %{url: String.t(), headers: list(), secrets: [Webhook.secret()]}}
          | {:error, term()}
  def open(vault, sealed, id) do
    with {:ok, opened} <- Vault.decrypt(vault, sealed, context(id)) do
      case :erlang.binary_to_term(opened, [:safe]) do
        {@format, url, headers, secrets} ->
          secrets =
            for {key, created_at_ms, expires_at_ms} <- secrets,
                do: %{key: key, created_at_ms: created_at_ms, expires_at_ms: expires_at_ms}

          {:ok, %{url: url, headers: headers, secrets: secrets}}

        _newer ->
          {:error, :unknown_format}
      end
    end
  end

  @doc "The context that binds the encrypted part to its webhook."
  @spec context(Webhook.id()) :: String.t()
  def context(id), do: "webhook:" <> id
end
