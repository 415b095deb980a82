defmodule Plausible.Webhooks.Vault do
  @moduledoc """
  Encrypts secrets at rest: AES-256-GCM with a ring of keys.

  The first key encrypts, every key decrypts. `Plausible.Webhooks.rekey/1` describes how a key
  is replaced.

      iex> alias Plausible.Webhooks.Vault
      iex> {:ok, vault} = Vault.new([Vault.generate_key()])
      iex> sealed = Vault.encrypt(vault, "whsec_...", "webhook:wh_1")
      iex> Vault.decrypt(vault, sealed, "webhook:wh_1")
      {:ok, "whsec_..."}
      iex> Vault.decrypt(vault, sealed, "webhook:wh_2")
      {:error, :not_authentic}

  The context (`"webhook:wh_1"` above) is authenticated but not stored: what was
  encrypted for one row cannot be moved to another.

  A sealed binary is `version (1 byte, 1) | key id (4) | nonce (12) | tag (16) |
  ciphertext`: 33 bytes more than the plaintext. The key id is derived from the
  key by SHA-256, so it names the key without describing it. Nonces are random;
  NIST SP 800-38D allows 2^32 encryptions with one key.

  The struct holds no key: keys are kept in `:persistent_term`, so that neither
  `inspect/1`, nor a crash report, nor Erlang's own formatting of a process state
  can show one. A vault is of use on the node that made it.
  """

  require Logger

  @enforce_keys [:key_ids]
  defstruct [:key_ids]

  @typedoc "A ring of keys, which are not in the struct."
  @opaque t :: %__MODULE__{key_ids: [binary(), ...]}
  @typedoc "32 bytes, raw or in standard Base64."
  @type key :: String.t() | binary()

  @key_bytes 32
  @key_id_bytes 4
  @version 1
  @cipher :aes_256_gcm

  @doc """
  A vault from a list of keys, newest first.

  Errors: `:no_keys`; `{:invalid_key, position}` (from 1) for a key that is not 32
  bytes, raw or in Base64; `{:ambiguous_keys, position}` when two different keys
  have the same id (one in four billion pairs: take another key).
  """
  @spec new([key()]) ::
          {:ok, t()}
          | {:error, :no_keys | {:invalid_key, pos_integer()} | {:ambiguous_keys, pos_integer()}}
  def new([]), do: {:error, :no_keys}

  def new(keys) when is_list(keys) do
    keys
    |> Enum.with_index(1)
    |> Enum.reduce_while({:ok, []}, fn {key, position}, {:ok, ring} ->
      with {:ok, raw} <- raw_key(key, position),
           {:ok, ring} <- add(ring, {key_id(raw), raw}, position) do
        {:cont, {:ok, ring}}
      else
        error -> {:halt, error}
      end
    end)
    |> case do
      {:ok, ring} -> {:ok, %__MODULE__{key_ids: ring |> Enum.reverse() |> Enum.map(&keep/1)}}
      {:error, _reason} = error -> error
    end
  end

  def new(_other), do: raise(ArgumentError, "the keys of a vault must be a list")

  defp raw_key(key, _position) when is_binary(key) and byte_size(key) == @key_bytes,
    do: {:ok, key}

  defp raw_key(key, position) when is_binary(key) do
    case Base.decode64(String.trim(key), padding: false) do
      {:ok, raw} when byte_size(raw) == @key_bytes -> {:ok, raw}
      _other -> {:error, {:invalid_key, position}}
    end
  end

  defp raw_key(_key, position), do: {:error, {:invalid_key, position}}

  defp add(ring, {id, raw}, position) do
    case List.keyfind(ring, id, 0) do
      nil -> {:ok, [{id, raw} | ring]}
      {^id, ^raw} -> {:ok, ring}
      {^id, _other} -> {:error, {:ambiguous_keys, position}}
    end
  end

  # The key's whole digest is part of the name under which it is kept, so that
  # two vaults whose keys share an id do not take each other's.
  defp keep({id, raw}) do
    reference = :crypto.hash(:sha256, ["plausible_webhooks vault", raw])
    :persistent_term.put({__MODULE__, reference}, raw)
    {id, reference}
  end

  defp key_id(raw),
    do: binary_part(:crypto.hash(:sha256, ["plausible_webhooks key id", raw]), 0, @key_id_bytes)

  @doc "A new random key, in Base64."
  @spec generate_key() :: String.t()
  def generate_key, do: Base.encode64(:crypto.strong_rand_bytes(@key_bytes))

  @doc """
  Encrypts with the newest key. `context` says what this is and whose; the same
  one decrypts it.
  """
  @spec encrypt(t(), iodata(), String.t()) :: binary()
  def encrypt(%__MODULE__{key_ids: [{id, reference} | _older]}, plaintext, context)
      when is_binary(context) do
    nonce = :crypto.strong_rand_bytes(12)
    header = <<@version, id::binary>>

    {ciphertext, tag} =
      :crypto.crypto_one_time_aead(
        @cipher,
        fetch(reference),
        nonce,
        plaintext,
        [header, context],
        true
      )

    <<header::binary, nonce::binary, tag::binary, ciphertext::binary>>
  end

  @doc """
  Decrypts. Errors: `:unknown_key` (encrypted with a key that is not in the ring),
  `:not_authentic` (changed, or sealed with another context), `:malformed`,
  `:unsupported_version`.
  """
  @spec decrypt(t(), binary(), String.t()) ::
          {:ok, binary()}
          | {:error, :unknown_key | :not_authentic | :malformed | :unsupported_version}
  def decrypt(
        %__MODULE__{key_ids: key_ids},
        <<@version, id::binary-size(4), nonce::binary-size(12), tag::binary-size(16),
          ciphertext::binary>>,
        context
      )
      when is_binary(context) do
    with {^id, reference} <- List.keyfind(key_ids, id, 0, {:error, :unknown_key}) do
      aad = [<<@version, id::binary>>, context]

      case :crypto.crypto_one_time_aead(
             @cipher,
             fetch(reference),
             nonce,
             ciphertext,
             aad,
             tag,
             false
           ) do
        :error -> {:error, :not_authentic}
        plaintext -> {:ok, plaintext}
      end
    end
  end

  def decrypt(%__MODULE__{}, <<@version, _rest::binary>>, context) when is_binary(context),
    do: {:error, :malformed}

  def decrypt(%__MODULE__{}, <<_version, _rest::binary>>, context) when is_binary(context),
    do: {:error, :unsupported_version}

  def decrypt(%__MODULE__{}, "", context) when is_binary(context), do: {:error, :malformed}

  @doc "The 5 bytes with which everything begins that the first key has encrypted."
  @spec prefix(t()) :: binary()
  def prefix(%__MODULE__{key_ids: [{id, _reference} | _older]}), do: <<@version, id::binary>>

  defp fetch(reference), do: :persistent_term.get({__MODULE__, reference})

  @doc """
  A vault from a key file: one Base64 key per line, newest first; empty lines and
  lines that begin with `#` do not count.

  Errors: `{:key_file, path, reason}`, with the reason of `new/1` or `File.read/1`.
  """
  @spec load_file(Path.t()) :: {:ok, t()} | {:error, {:key_file, Path.t(), term()}}
  def load_file(path) do
    with {:ok, text} <- File.read(path),
         {:ok, vault} <- text |> key_lines() |> new() do
      warn_of_others(path)
      {:ok, vault}
    else
      {:error, reason} -> {:error, {:key_file, path, reason}}
    end
  end

  defp warn_of_others(path) do
    with {:ok, %{mode: mode}} when Bitwise.band(mode, 0o077) != 0 <- File.stat(path),
         do:
           Logger.warning(
             "webhooks: other users can read or change the key file #{path}; run chmod 600 on it"
           )
  end

  # Decoded here: new/1 would take a line of 32 characters for a raw key.
  defp key_lines(text) do
    for line <- String.split(text, ["\r\n", "\n"]),
        line = String.trim(line),
        line != "" and not String.starts_with?(line, "#") do
      case Base.decode64(line, padding: false) do
        {:ok, raw} -> raw
        :error -> ""
      end
    end
  end

  @doc """
  Makes a key file with one new key, readable by its owner only (0600). The file is on disk
  when the function returns. Error: `{:key_file, path, reason}`; an existing file is never
  replaced (`:eexist`).
  """
  @spec create_file(Path.t()) :: {:ok, t()} | {:error, {:key_file, Path.t(), term()}}
  def create_file(path) do
    # Under another name first: a crash must not leave half a key file behind.
    draft = "#{path}.#{Base.encode16(:crypto.strong_rand_bytes(6), case: :lower)}"
    text = "# Key of plausible_webhooks. Without it the stored secrets cannot be read.\n"

    result =
      with false <- File.exists?(path),
           :ok <- make_folder(Path.dirname(path)),
           :ok <- write_private(draft, [text, generate_key(), "\n"]),
           :ok <- File.rename(draft, path),
           :ok <- sync_directory(Path.dirname(path)) do
        load_file(path)
      else
        true -> {:error, {:key_file, path, :eexist}}
        {:error, {:key_file, _path, _reason}} = error -> error
        {:error, reason} -> {:error, {:key_file, path, reason}}
      end

    if match?({:error, _}, result), do: File.rm(draft)
    result
  end

  # For files that nobody else may read; one that is there stays as it is.
  @doc false
  @spec make_folder(Path.t()) :: :ok | {:error, File.posix()}
  def make_folder(path) do
    if File.dir?(path),
      do: :ok,
      else: with(:ok <- File.mkdir_p(path), do: File.chmod(path, 0o700))
  end

  defp write_private(path, data) do
    with {:ok, file} <- :file.open(path, [:write, :exclusive, :raw, :binary]) do
      try do
        with :ok <- File.chmod(path, 0o600),
             :ok <- :file.write(file, data),
             do: :file.sync(file)
      after
        :file.close(file)
      end
    end
  end

  # A file system that cannot sync a directory loses nothing by our asking.
  defp sync_directory(path) do
    with {:ok, directory} <- :file.open(path, [:read, :raw, :directory]) do
      _ = :file.sync(directory)
      :file.close(directory)
    end
  end
end

defimpl Inspect, for: Plausible.Webhooks.Vault do
  def inspect(vault, _opts), do: "#Plausible.Webhooks.Vault<#{length(vault.key_ids)} keys>"
end
