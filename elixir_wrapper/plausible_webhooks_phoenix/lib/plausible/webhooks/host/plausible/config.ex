defmodule Plausible.Webhooks.Host.Plausible.Config do
  @moduledoc """
  Reads the configuration from environment variables, for Plausible's `config/runtime.exs`.

      config :plausible,
             Plausible.Webhooks,
             Plausible.Webhooks.Host.Plausible.Config.from_env(
               &get_var_from_path_or_env(config_dir, &1),
               secret_key_base: secret_key_base
             )

  | variable | default | meaning |
  |---|---|---|
  | `WEBHOOKS_ENABLED` | `true`, in tests `false` | whether webhooks run at all |
  | `WEBHOOKS_VAULT_KEY` | derived from `SECRET_KEY_BASE` | encrypts secrets, URLs and header values in the database: 32 bytes in Base64 (`openssl rand -base64 32`); several, newest first, separated by commas |
  | `WEBHOOKS_ALLOW` | none | destinations to allow besides public ones, such as `n8n:5678,10.1.0.0/16:*`, up to 256 |
  | `WEBHOOKS_ALLOW_HTTP` | `false` | allow endpoints without TLS |
  | `WEBHOOKS_RETRY_DELAYS` | `10,600,14400` | seconds before each retry, 1 to 12 values, each up to 7 days |
  | `WEBHOOKS_RETENTION_DAYS` | `30` | how long finished deliveries are kept, up to 3650 days |
  | `WEBHOOKS_PER_SITE_MAX` | `20` | webhooks of one site, up to 1000 |

  An empty variable counts as unset. An invalid one raises an `ArgumentError` that names it,
  so that the release does not start; so does a list with an empty part (`10,,60`). The
  message does not quote a key.

  The key derived from `SECRET_KEY_BASE` stays at the end of the key ring, so that a
  `WEBHOOKS_VAULT_KEY` can be introduced later: the derived key decrypts what was encrypted
  before, the new one encrypts what is saved from then on.
  """

  alias Plausible.Webhooks.{Options, Vault}

  @typedoc "The value of a variable by its name, `nil` when it is not set."
  @type get :: (String.t() -> String.t() | nil)

  @days_ms 86_400_000
  @iterations 100_000

  @doc """
  The options of `Plausible.Webhooks` that variables set; `nil` when webhooks are switched
  off.

  Options:

    * `:secret_key_base` - required; the derived key comes from it.
    * `:enabled` - the default of `WEBHOOKS_ENABLED`, default `true`.
  """
  @spec from_env(get(), secret_key_base: String.t(), enabled: boolean()) :: keyword() | nil
  def from_env(get, options) when is_function(get, 1) do
    options = Keyword.validate!(options, [:secret_key_base, enabled: true])
    secret = Keyword.fetch!(options, :secret_key_base)
    get = fn name -> set(get.(name)) end

    if boolean(get, "WEBHOOKS_ENABLED", options[:enabled]) do
      [vault: vault(get, secret), policy: policy(get)] ++
        seconds(get, "WEBHOOKS_RETRY_DELAYS", :retry_delays_ms) ++
        number(get, "WEBHOOKS_RETENTION_DAYS", :retention_ms, 3_650, @days_ms) ++
        number(get, "WEBHOOKS_PER_SITE_MAX", :webhooks_per_site_max, 1_000, 1)
    end
  end

  # Compose files pass unset variables on as empty ones.
  defp set(nil), do: nil

  defp set(text) when is_binary(text) do
    case String.trim(text) do
      "" -> nil
      text -> text
    end
  end

  # --- the vault

  defp vault(get, secret) do
    name = "WEBHOOKS_VAULT_KEY"
    keys = get |> parts(name) |> Enum.with_index(1) |> Enum.map(&key(&1, name))
    ring = keys ++ [derived(secret)]

    case Vault.new(ring) do
      {:ok, _vault} -> ring
      {:error, {_kind, at}} -> invalid(name, "key #{at} cannot be used; generate a new one")
    end
  end

  defp key({text, at}, name) do
    case Base.decode64(text, padding: false) do
      {:ok, key} when byte_size(key) == 32 -> key
      {:ok, key} -> invalid(name, "key #{at} has #{byte_size(key)} bytes and must have 32")
      :error -> invalid(name, "key #{at} is not Base64 (openssl rand -base64 32)")
    end
  end

  # Plug.Crypto.KeyGenerator derives the keys of Plausible's other vaults the same way, with
  # other salts.
  defp derived(secret) when is_binary(secret) and byte_size(secret) >= 32,
    do: :crypto.pbkdf2_hmac(:sha256, secret, "webhooks", @iterations, 32)

  defp derived(_short), do: invalid("SECRET_KEY_BASE", "must have at least 32 bytes")

  # --- the policy for destinations

  defp policy(get) do
    name = "WEBHOOKS_ALLOW"
    allow = parts(get, name)

    case Options.wrong_allow(allow) do
      nil -> %{https_only: not boolean(get, "WEBHOOKS_ALLOW_HTTP", false), allow: allow}
      wrong -> invalid(name, wrong)
    end
  end

  # --- values

  @yes ~w(1 t true y yes on)
  @no ~w(0 f false n no off)

  # As Plausible's own variables spell them.
  defp boolean(get, name, default) do
    text = get.(name)

    cond do
      text == nil -> default
      String.downcase(text) in @yes -> true
      String.downcase(text) in @no -> false
      true -> invalid(name, "#{inspect(text)} is neither true nor false")
    end
  end

  defp seconds(get, name, option) do
    case get |> parts(name) |> Enum.map(&integer(name, &1, 7 * 86_400)) do
      [] -> []
      delays when length(delays) <= 12 -> [{option, Enum.map(delays, &(&1 * 1_000))}]
      _many -> invalid(name, "has more than 12 delays")
    end
  end

  defp number(get, name, option, max, unit) do
    case get.(name) do
      nil -> []
      text -> [{option, integer(name, text, max) * unit}]
    end
  end

  defp integer(name, text, max) do
    case Integer.parse(text) do
      {number, ""} when number in 1..max//1 -> number
      _other -> invalid(name, "#{inspect(text)} must be an integer from 1 to #{max}")
    end
  end

  # An empty part is a mistake, such as a key that was lost with its variable.
  defp parts(get, name) do
    parts = (get.(name) || "") |> String.split(",") |> Enum.map(&String.trim/1)

    case Enum.find_index(parts, &(&1 == "")) do
      nil -> parts
      0 when parts == [""] -> []
      index -> invalid(name, "part #{index + 1} of the list is empty")
    end
  end

  @spec invalid(String.t(), String.t()) :: no_return()
  defp invalid(name, text), do: raise(ArgumentError, "#{name}: #{text}")
end
