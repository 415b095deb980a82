defmodule Plausible.Webhooks.VaultTest do
  use ExUnit.Case, async: true
  import Bitwise

  alias Plausible.Webhooks.Vault

  doctest Vault

  @context "webhook:wh_1"

  setup do
    key = Vault.generate_key()
    {:ok, vault} = Vault.new([key])
    %{key: key, vault: vault}
  end

  test "any bytes decrypt to themselves", %{vault: vault} do
    for plaintext <- ["", "a", <<0>>, <<255, 254, 0>>, :crypto.strong_rand_bytes(100_000)] do
      sealed = Vault.encrypt(vault, plaintext, @context)
      assert byte_size(sealed) == byte_size(plaintext) + 33
      assert Vault.decrypt(vault, sealed, @context) == {:ok, plaintext}
    end
  end

  test "OTP's AES-256-GCM makes the same ciphertext", %{
    key: key,
    vault: vault
  } do
    <<1, id::binary-size(4), nonce::binary-size(12), tag::binary-size(16), ciphertext::binary>> =
      Vault.encrypt(vault, "secret", @context)

    assert :crypto.crypto_one_time_aead(
             :aes_256_gcm,
             Base.decode64!(key),
             nonce,
             ciphertext,
             [<<1>>, id, @context],
             tag,
             false
           ) == "secret"
  end

  test "the same plaintext never seals to the same bytes", %{vault: vault} do
    sealed = for _ <- 1..1_000, do: Vault.encrypt(vault, "same", @context)

    nonces =
      Enum.uniq(
        for <<_head::binary-size(5), nonce::binary-size(12), _::binary>> <- sealed, do: nonce
      )

    assert length(nonces) == 1_000
  end

  test "a sealed binary belongs to its context", %{vault: vault} do
    sealed = Vault.encrypt(vault, "secret", @context)
    assert Vault.decrypt(vault, sealed, "webhook:wh_2") == {:error, :not_authentic}
    assert Vault.decrypt(vault, sealed, "") == {:error, :not_authentic}
  end

  test "a change of any bit is detected", %{vault: vault} do
    sealed = Vault.encrypt(vault, "secret", @context)

    for bit <- 0..(bit_size(sealed) - 1) do
      <<before::bitstring-size(bit), flipped::1, rest::bitstring>> = sealed
      changed = <<before::bitstring, bxor(flipped, 1)::1, rest::bitstring>>
      assert {:error, reason} = Vault.decrypt(vault, changed, @context)

      # The first byte is the version, the next four the key id.
      expected =
        cond do
          bit < 8 -> :unsupported_version
          bit < 40 -> :unknown_key
          true -> :not_authentic
        end

      assert reason == expected
    end
  end

  test "a text that is too short is malformed, and nothing raises", %{vault: vault} do
    sealed = Vault.encrypt(vault, "", @context)

    for size <- 0..(byte_size(sealed) - 1) do
      assert Vault.decrypt(vault, binary_part(sealed, 0, size), @context) == {:error, :malformed}
    end

    assert Vault.decrypt(vault, sealed <> "x", @context) == {:error, :not_authentic}
    assert Vault.decrypt(vault, <<2>>, @context) == {:error, :unsupported_version}
  end

  test "the newest key encrypts, every key of the ring decrypts", %{key: old, vault: old_vault} do
    new = Vault.generate_key()
    {:ok, both} = Vault.new([new, old])
    {:ok, new_vault} = Vault.new([new])

    sealed_by_old = Vault.encrypt(old_vault, "secret", @context)
    assert Vault.decrypt(both, sealed_by_old, @context) == {:ok, "secret"}
    prefix = &String.starts_with?(&2, Vault.prefix(&1))
    refute prefix.(both, sealed_by_old)
    assert prefix.(old_vault, sealed_by_old)

    sealed_by_both = Vault.encrypt(both, "secret", @context)
    assert prefix.(both, sealed_by_both)
    assert Vault.decrypt(new_vault, sealed_by_both, @context) == {:ok, "secret"}
    assert Vault.decrypt(old_vault, sealed_by_both, @context) == {:error, :unknown_key}
    assert Vault.decrypt(new_vault, sealed_by_old, @context) == {:error, :unknown_key}
  end

  test "keys are 32 bytes, raw or in Base64; a wrong one is named by position" do
    raw = :crypto.strong_rand_bytes(32)
    encoded = Base.encode64(raw)
    {:ok, from_raw} = Vault.new([raw])
    {:ok, from_base64} = Vault.new([encoded])
    {:ok, from_unpadded} = Vault.new([String.trim_trailing(encoded, "=") <> "\n"])

    sealed = Vault.encrypt(from_raw, "secret", @context)
    assert Vault.decrypt(from_base64, sealed, @context) == {:ok, "secret"}
    assert Vault.decrypt(from_unpadded, sealed, @context) == {:ok, "secret"}

    assert Vault.new([]) == {:error, :no_keys}
    assert Vault.new([raw, raw, encoded]) == {:ok, from_raw}

    for bad <- ["", binary_part(raw, 0, 31), raw <> "x", Base.encode64("short"), nil, 7, :key] do
      assert Vault.new([bad]) == {:error, {:invalid_key, 1}}
      assert Vault.new([encoded, bad]) == {:error, {:invalid_key, 2}}
    end

    assert_raise ArgumentError, fn -> Vault.new(encoded) end
  end

  test "nothing that prints a vault prints a key", %{key: key, vault: vault} do
    raw = Base.decode64!(key)
    assert inspect(vault) == "#Plausible.Webhooks.Vault<1 keys>"

    for shown <- [
          inspect(vault, structs: false, limit: :infinity),
          to_string(:io_lib.format("~p ~w", [vault, vault])),
          :erlang.term_to_binary(vault)
        ] do
      refute shown =~ key
      refute shown =~ raw
      refute shown =~ Enum.join(:binary.bin_to_list(raw), ",")
      refute shown =~ Enum.join(:binary.bin_to_list(raw), ", ")
    end
  end

  describe "key files" do
    setup do
      folder = Path.join(System.tmp_dir!(), "vault_#{System.unique_integer([:positive])}")
      File.mkdir_p!(folder)
      on_exit(fn -> File.rm_rf!(folder) end)
      %{path: Path.join(folder, "key"), folder: folder}
    end

    test "a new one is readable only by its owner", %{path: path, folder: folder} do
      assert {:ok, made} = Vault.create_file(path)
      assert (File.stat!(path).mode &&& 0o777) == 0o600

      load = fn ->
        ExUnit.CaptureLog.capture_log(fn -> {:ok, ^made} = Vault.load_file(path) end)
      end

      refute load.() =~ path
      File.chmod!(path, 0o640)
      assert load.() =~ "other users can read or change the key file #{path}"
      File.chmod!(path, 0o600)
      assert File.ls!(folder) == ["key"]
      assert {:ok, loaded} = Vault.load_file(path)
      assert Vault.decrypt(loaded, Vault.encrypt(made, "s", "c"), "c") == {:ok, "s"}
    end

    test "an existing one is never replaced", %{path: path, folder: folder} do
      File.write!(path, "mine")
      assert Vault.create_file(path) == {:error, {:key_file, path, :eexist}}
      assert File.read!(path) == "mine"
      assert File.ls!(folder) == ["key"]
    end

    test "its folder is made with it, for its owner alone", %{folder: folder} do
      path = Path.join([folder, "none", "key"])
      assert Vault.load_file(path) == {:error, {:key_file, path, :enoent}}
      assert {:ok, _made} = Vault.create_file(path)
      assert (File.stat!(Path.dirname(path)).mode &&& 0o777) == 0o700
      none = "/proc/none/key"
      assert {:error, {:key_file, ^none, _reason}} = Vault.create_file(none)
    end

    test "lines are keys, newest first; comments and empty lines are not", %{path: path} do
      [new, old] = [Vault.generate_key(), Vault.generate_key()]
      File.write!(path, "# keys\r\n\r\n#{new}\r\n  #{old}  \n")
      {:ok, vault} = Vault.load_file(path)
      {:ok, old_vault} = Vault.new([old])
      {:ok, new_vault} = Vault.new([new])
      assert Vault.decrypt(new_vault, Vault.encrypt(vault, "s", "c"), "c") == {:ok, "s"}
      assert Vault.decrypt(vault, Vault.encrypt(old_vault, "s", "c"), "c") == {:ok, "s"}
    end

    test "an invalid line is named by its position", %{path: path} do
      # 32 characters would pass for a raw key, and would be a poor one.
      for line <- ["correct horse battery staple ....", String.duplicate("a", 32), "!"] do
        File.write!(path, "#{Vault.generate_key()}\n#{line}\n")
        assert Vault.load_file(path) == {:error, {:key_file, path, {:invalid_key, 2}}}
      end

      File.write!(path, "# nothing\n")
      assert Vault.load_file(path) == {:error, {:key_file, path, :no_keys}}
    end
  end
end
