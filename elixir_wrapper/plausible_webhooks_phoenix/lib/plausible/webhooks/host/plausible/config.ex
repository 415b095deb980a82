defmodule Plausible.Webhooks.Host.Plausible.Config do
  @moduledoc """
  The configuration from environment variables, for Plausible's `config/runtime.exs`.

      config :plausible,
             Plausible.Webhooks,
             Plausible.Webhooks.Host.Plausible.Config.from_env(
               &get_var_from_path_or_env(config_dir, &1),
               secret_key_base: secret_key_base
             )

  | variable | default | what |
  |---|---|---|
  | `WEBHOOKS_ENABLED` | `true`, in tests `false` | whether anything of it runs |
  | `WEBHOOKS_VAULT_KEY` | derived from `SECRET_KEY_BASE` | encrypts secrets, URLs and header values in the database: 32 bytes in Base64 (`openssl rand -base64 32`); several, newest first, with commas between them |
  | `WEBHOOKS_ALLOW_PRIVATE` | `false` | endpoints in private networks and with local names may be reached |
  | `WEBHOOKS_ALLOW_CIDRS` | none | addresses that may be reached besides public ones, as `10.1.0.0/16,fd00::/8`, up to 256 |
  | `WEBHOOKS_ALLOW_HTTP` | `false` | endpoints without TLS may be used |
  | `WEBHOOKS_RETRY_DELAYS` | `10,60,300` | seconds before each retry, 1 to 12 of them, each up to 7 days |
  | `WEBHOOKS_RETENTION_DAYS` | `30` | how long finished deliveries are kept, up to 3650 days |
  | `WEBHOOKS_PER_SITE_MAX` | `20` | webhooks of one site, up to 1000 |

  A variable that is empty counts as one that is not set. One that cannot be
  understood raises an `ArgumentError` that names it: the release does not start. So does
  a list with an empty part (`10,,60`): something was to stand there. The value is not in
  the message when it is a key.

  The key that is derived from `SECRET_KEY_BASE` stays at the end of the ring, so that
  a `WEBHOOKS_VAULT_KEY` can be introduced later: what was encrypted before is read
  with the derived one, what is saved from then on is encrypted with the new one.
  """

  alias Plausible.Webhooks.Vault

  @typedoc "The value of a variable by its name, `nil` when it is not set."
  @type get :: (String.t() -> String.t() | nil)

  @days_ms 86_400_000
  @iterations 100_000
  # As many as the native policy takes.
  @cidrs_max 256

  @doc """
  Options of `Plausible.Webhooks`, those of them that variables set; `nil` when
  webhooks are switched off.

  Options:

    * `:secret_key_base` - required, what the key is derived from.
    * `:enabled` - what counts when `WEBHOOKS_ENABLED` is not set, default `true`.
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

  # Compose files pass on variables that nobody has set as empty ones.
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
      {:error, {_kind, at}} -> invalid(name, "key #{at} cannot be used, take a new one")
    end
  end

  defp key({text, at}, name) do
    case Base.decode64(text, padding: false) do
      {:ok, key} when byte_size(key) == 32 -> key
      {:ok, key} -> invalid(name, "key #{at} has #{byte_size(key)} bytes, and must have 32")
      :error -> invalid(name, "key #{at} is not Base64 (openssl rand -base64 32)")
    end
  end

  # As Plug.Crypto.KeyGenerator derives the keys of Plausible's other vaults, with a
  # salt of its own.
  defp derived(secret) when is_binary(secret) and byte_size(secret) >= 32,
    do: :crypto.pbkdf2_hmac(:sha256, secret, "webhooks", @iterations, 32)

  defp derived(_short), do: invalid("SECRET_KEY_BASE", "must have 32 bytes at least")

  # --- where may be sent to

  defp policy(get) do
    %{
      https_only: not boolean(get, "WEBHOOKS_ALLOW_HTTP", false),
      allow_private: boolean(get, "WEBHOOKS_ALLOW_PRIVATE", false),
      allow: get |> parts("WEBHOOKS_ALLOW_CIDRS") |> Enum.map(&cidr/1) |> few()
    }
  end

  defp few(cidrs) when length(cidrs) <= @cidrs_max, do: cidrs

  defp few(_many),
    do: invalid("WEBHOOKS_ALLOW_CIDRS", "has more than #{@cidrs_max} networks, join some of them")

  # The rule of the policy itself, which would name no variable: an address, or one
  # with a prefix length and no bits behind the prefix.
  defp cidr(text) do
    with [_all, address | prefix] <-
           Regex.run(~r"\A([0-9a-fA-F.:]+)(?:/(0|[1-9]\d{0,2}))?\z", text),
         {:ok, address} <- address |> String.to_charlist() |> :inet.parse_strict_address(),
         true <- prefix?(bits(address), prefix) do
      text
    else
      _other ->
        invalid(
          "WEBHOOKS_ALLOW_CIDRS",
          "#{inspect(text)} is no network such as 10.1.0.0/16 or fd00::/8"
        )
    end
  end

  defp bits({a, b, c, d}), do: {:binary.decode_unsigned(<<a, b, c, d>>), 32}

  defp bits(address) do
    <<bits::128>> = for part <- Tuple.to_list(address), into: <<>>, do: <<part::16>>
    {bits, 128}
  end

  defp prefix?(_address, []), do: true

  defp prefix?({bits, width}, [length]) do
    behind = width - String.to_integer(length)
    behind >= 0 and rem(bits, Integer.pow(2, behind)) == 0
  end

  # --- values

  @yes ~w(1 t true y yes on)
  @no ~w(0 f false n no off)

  # The words of Plausible's own variables.
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
      _other -> invalid(name, "#{inspect(text)} is no whole number from 1 to #{max}")
    end
  end

  # An empty part is a mistake: a key that was lost with its variable, say.
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
