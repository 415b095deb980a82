defmodule Plausible.Webhooks.Webhook.Secrets do
  @moduledoc false
  # The secrets of one webhook, newest first.

  alias Plausible.Webhooks.Native

  @secrets_max 10
  @overlap_ms_max 7 * 86_400_000

  @type t :: [secret()]
  @type secret :: %{
          key: String.t(),
          created_at_ms: integer(),
          expires_at_ms: integer() | nil
        }

  @doc "A secret with this key, or with a new one for `nil`."
  @spec new(String.t() | nil, integer()) :: {:ok, secret()} | {:error, atom()}
  def new(key, now_ms) do
    with {:ok, key} <- if(key, do: {:ok, key}, else: Native.generate_secret()),
         do: {:ok, %{key: key, created_at_ms: now_ms, expires_at_ms: nil}}
  end

  @doc "Whether this is `whsec_` and the standard, padded Base64 of 24 to 64 bytes."
  @spec valid?(term()) :: boolean()
  def valid?("whsec_" <> encoded) do
    case Base.decode64(encoded) do
      # Encoded again, because there is more than one way to write the last bits.
      {:ok, raw} -> byte_size(raw) in 24..64 and Base.encode64(raw) == encoded
      :error -> false
    end
  end

  def valid?(_other), do: false

  @doc "Those that sign now."
  @spec live(t(), integer()) :: t()
  def live(secrets, now_ms),
    do: Enum.filter(secrets, &(&1.expires_at_ms == nil or &1.expires_at_ms > now_ms))

  @doc "Puts a new secret in front; see `Plausible.Webhooks.Webhook.rotate_secret/4`."
  @spec rotate(t(), non_neg_integer(), integer(), String.t() | nil) ::
          {:ok, t()} | {:error, atom()}
  def rotate(secrets, overlap_ms, now_ms, key) do
    older = if overlap_ms in 0..@overlap_ms_max, do: expire(secrets, now_ms, now_ms + overlap_ms)

    cond do
      older == nil -> {:error, :invalid_overlap}
      key != nil and not valid?(key) -> {:error, :invalid_secret}
      length(older) >= @secrets_max -> {:error, :too_many_secrets}
      Enum.any?(older, &(&1.key == key)) -> {:error, :duplicate_secret}
      true -> with {:ok, secret} <- new(key, now_ms), do: {:ok, [secret | older]}
    end
  end

  # In Erlang's term order nil is greater than any number: "never" is the latest time.
  defp expire(secrets, now_ms, at_ms) do
    for %{expires_at_ms: expires_at_ms} = secret <- live(secrets, now_ms),
        at_ms = min(expires_at_ms, at_ms),
        at_ms > now_ms,
        do: %{secret | expires_at_ms: at_ms}
  end
end
