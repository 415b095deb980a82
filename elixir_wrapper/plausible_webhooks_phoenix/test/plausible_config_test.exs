defmodule Plausible.Webhooks.Host.Plausible.ConfigTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Host.Plausible.Config
  alias Plausible.Webhooks.{Options, Vault}

  @secret "a secret of these tests, and long enough for one of Plausible"

  defp config(variables, options \\ []),
    do: Config.from_env(&variables[&1], Keyword.merge([secret_key_base: @secret], options))

  defp refused(variables) do
    assert_raise(ArgumentError, fn -> config(variables) end).message
  end

  test "without variables: a derived key, and nothing else than the defaults" do
    assert [vault: [key], policy: policy] = config(%{})
    assert byte_size(key) == 32
    assert policy == %Options{store: nil, host: nil}.policy
    assert config(%{}) == config(%{})
  end

  test "the derived key is that of Plug.Crypto.KeyGenerator, which makes those of Plausible" do
    # Plug.Crypto.KeyGenerator.generate(secret, "webhooks", length: 32, iterations: 100_000)
    assert [vault: [key], policy: _] = config(%{})

    assert Base.encode16(key, case: :lower) ==
             "943c7518cd819cdd8997a50e9fa26bb7ab75ec4411b3beed238245105142bdf4"
  end

  test "another secret gives another key" do
    assert config(%{})[:vault] != config(%{}, secret_key_base: @secret <> "x")[:vault]
  end

  test "the instance accepts all variables" do
    [new, old] = keys = [Vault.generate_key(), Vault.generate_key()]

    options =
      config(%{
        "WEBHOOKS_ENABLED" => "yes",
        "WEBHOOKS_VAULT_KEY" => "#{new}, #{old}",
        "WEBHOOKS_ALLOW" => "10.1.0.0/16, [fd00::1]:8080,n8n:5678",
        "WEBHOOKS_ALLOW_HTTP" => "1",
        "WEBHOOKS_RETRY_DELAYS" => "5, 30,3600",
        "WEBHOOKS_RETENTION_DAYS" => "90",
        "WEBHOOKS_PER_SITE_MAX" => "50"
      })

    assert {:ok, checked} =
             Options.new(
               [
                 store: {Plausible.Webhooks.Store.SQLite, []},
                 host: {Demo.Host, Demo.Host}
               ] ++ options
             )

    assert checked.policy == %{
             https_only: false,
             allow: ["10.1.0.0/16", "[fd00::1]:8080", "n8n:5678"]
           }

    assert checked.retry_delays_ms == [5_000, 30_000, 3_600_000]
    assert checked.retention_ms == 90 * 86_400_000
    assert checked.webhooks_per_site_max == 50
    assert Enum.take(options[:vault], 2) == Enum.map(keys, &Base.decode64!/1)
  end

  test "a key can be introduced later, and the derived key still decrypts" do
    {:ok, before} = Vault.new(config(%{})[:vault])
    sealed = Vault.encrypt(before, "whsec_x", "webhook:1")
    {:ok, later} = Vault.new(config(%{"WEBHOOKS_VAULT_KEY" => Vault.generate_key()})[:vault])

    assert Vault.decrypt(later, sealed, "webhook:1") == {:ok, "whsec_x"}
    refute String.starts_with?(sealed, Vault.prefix(later))
  end

  test "while switched off there is nothing to start" do
    assert config(%{"WEBHOOKS_ENABLED" => "false"}) == nil
    assert config(%{}, enabled: false) == nil
    assert config(%{"WEBHOOKS_ENABLED" => "on"}, enabled: false) != nil
    # A variable that is not read may be invalid.
    assert config(%{"WEBHOOKS_ENABLED" => "off", "WEBHOOKS_PER_SITE_MAX" => "many"}) == nil
  end

  test "an empty variable counts as unset" do
    names = ~w(ENABLED VAULT_KEY ALLOW ALLOW_HTTP RETRY_DELAYS RETENTION_DAYS PER_SITE_MAX)

    for empty <- ["", "  "] do
      assert config(Map.new(names, &{"WEBHOOKS_#{&1}", empty})) == config(%{})
    end
  end

  @key Base.encode64(String.duplicate("a key of these ", 2) <> "ab")

  for {name, wrong} <- [
        {"WEBHOOKS_ENABLED", ["maybe", "2"]},
        {"WEBHOOKS_VAULT_KEY",
         ["not base64!", "c2hvcnQ=", ",", @key <> ",", @key <> ",," <> @key]},
        {"WEBHOOKS_ALLOW",
         [
           ",",
           "10.0.0.0/8,,fd00::/8",
           "0.0.0.0/0",
           "::/0:*",
           "10.1.0.0/8",
           "n8n:http"
         ]},
        {"WEBHOOKS_ALLOW_HTTP", ["http"]},
        {"WEBHOOKS_RETRY_DELAYS",
         [
           ",",
           "10,,60",
           "10,",
           "0",
           "1.5",
           "10s",
           "-1",
           "604801",
           Enum.map_join(1..13, ",", &"#{&1}")
         ]},
        {"WEBHOOKS_RETENTION_DAYS", ["0", "3651", "a month"]},
        {"WEBHOOKS_PER_SITE_MAX", ["0", "1001", "1e3"]}
      ],
      value <- wrong do
    test "#{name}=#{value} is refused, and the error names it" do
      assert refused(%{unquote(name) => unquote(value)}) =~ ~r/\A#{unquote(name)}: /
    end
  end

  test "there may be 256 destinations" do
    many = fn count -> Enum.map_join(1..count, ",", &"n8n:#{&1}") end
    assert length(config(%{"WEBHOOKS_ALLOW" => many.(256)})[:policy].allow) == 256
    assert refused(%{"WEBHOOKS_ALLOW" => many.(257)}) =~ ~r/\AWEBHOOKS_ALLOW: has more than/
  end

  test "a key is in no message" do
    almost = Base.encode64(String.duplicate("k", 31))
    refute refused(%{"WEBHOOKS_VAULT_KEY" => almost}) =~ almost
  end

  test "a secret that is too short is refused" do
    assert_raise ArgumentError, ~r/SECRET_KEY_BASE/, fn ->
      config(%{}, secret_key_base: "short")
    end
  end
end
