defmodule Plausible.Webhooks.Host.Plausible.ConfigTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Host.Plausible.Config
  alias Plausible.Webhooks.{Native, Vault}
  alias Plausible.Webhooks.Options

  @secret "a secret of these tests, and long enough for one of Plausible"

  defp config(variables, options \\ []),
    do: Config.from_env(&variables[&1], Keyword.merge([secret_key_base: @secret], options))

  defp refused(variables) do
    assert_raise(ArgumentError, fn -> config(variables) end).message
  end

  test "without variables: a derived key, and nothing else than the defaults" do
    assert [vault: [key], policy: policy] = config(%{})
    assert byte_size(key) == 32
    assert Map.put(policy, :ports, []) == %Options{store: nil, host: nil}.policy
    assert config(%{}) == config(%{})
  end

  test "the derived key is that of Plug.Crypto.KeyGenerator, which makes those of Plausible" do
    # Plug.Crypto.KeyGenerator.generate(secret, "webhooks", length: 32, iterations: 100_000)
    assert [vault: [key], policy: _] = config(%{})

    assert Base.encode16(key, case: :lower) ==
             "943c7518cd819cdd8997a50e9fa26bb7ab75ec4411b3beed238245105142bdf4"
  end

  test "another secret, another key" do
    assert config(%{})[:vault] != config(%{}, secret_key_base: @secret <> "x")[:vault]
  end

  test "what is set is what an instance takes" do
    [new, old] = keys = [Vault.generate_key(), Vault.generate_key()]

    options =
      config(%{
        "WEBHOOKS_ENABLED" => "yes",
        "WEBHOOKS_VAULT_KEY" => "#{new}, #{old}",
        "WEBHOOKS_ALLOW_PRIVATE" => "true",
        "WEBHOOKS_ALLOW_CIDRS" => "10.1.0.0/16, fd00::/8,192.168.1.7",
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
             allow_private: true,
             allow: ["10.1.0.0/16", "fd00::/8", "192.168.1.7"],
             ports: []
           }

    assert checked.retry_delays_ms == [5_000, 30_000, 3_600_000]
    assert checked.retention_ms == 90 * 86_400_000
    assert checked.webhooks_per_site_max == 50
    assert Enum.take(options[:vault], 2) == Enum.map(keys, &Base.decode64!/1)
  end

  test "a key can be introduced later: the derived one still reads" do
    {:ok, before} = Vault.new(config(%{})[:vault])
    sealed = Vault.encrypt(before, "whsec_x", "webhook:1")
    {:ok, later} = Vault.new(config(%{"WEBHOOKS_VAULT_KEY" => Vault.generate_key()})[:vault])

    assert Vault.decrypt(later, sealed, "webhook:1") == {:ok, "whsec_x"}
    refute String.starts_with?(sealed, Vault.prefix(later))
  end

  test "switched off there is nothing to start" do
    assert config(%{"WEBHOOKS_ENABLED" => "false"}) == nil
    assert config(%{}, enabled: false) == nil
    assert config(%{"WEBHOOKS_ENABLED" => "on"}, enabled: false) != nil
    # Nobody needs to mend a value that nobody reads.
    assert config(%{"WEBHOOKS_ENABLED" => "off", "WEBHOOKS_PER_SITE_MAX" => "many"}) == nil
  end

  test "an empty variable counts as one that is not set" do
    names = ~w(ENABLED VAULT_KEY ALLOW_PRIVATE ALLOW_CIDRS ALLOW_HTTP RETRY_DELAYS
               RETENTION_DAYS PER_SITE_MAX)

    for empty <- ["", "  "] do
      assert config(Map.new(names, &{"WEBHOOKS_#{&1}", empty})) == config(%{})
    end
  end

  @key Base.encode64(String.duplicate("a key of these ", 2) <> "ab")

  for {name, wrong} <- [
        {"WEBHOOKS_ENABLED", ["maybe", "2"]},
        {"WEBHOOKS_VAULT_KEY",
         ["not base64!", "c2hvcnQ=", ",", @key <> ",", @key <> ",," <> @key]},
        {"WEBHOOKS_ALLOW_PRIVATE", ["lan"]},
        {"WEBHOOKS_ALLOW_CIDRS", [",", "10.0.0.0/8,,fd00::/8"]},
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
    test "#{name}=#{value} is refused, by its name" do
      assert refused(%{unquote(name) => unquote(value)}) =~ ~r/\A#{unquote(name)}: /
    end
  end

  test "networks are those that the policy takes" do
    for network <- ~w(10.0.0.0/8 0.0.0.0/0 10.1.2.3 10.1.2.3/32 ::/0 fd00::/8 ::1 2001:db8::/32
                      10.1.0.0/8 10.0.0.0/33 10.0.0.0/08 10.0.0.0/+8 10.0.0.0/ 10.0.0/8 fd00::1/8
                      fe80::1%1 localhost 1 300.1.1.1 10.0.0.0/8/8 ::/129 ::ffff:10.0.0.0/104) do
      taken? = match?({:ok, _}, Native.check_url("https://example.com/", %{allow: [network]}))

      if taken?,
        do: assert(config(%{"WEBHOOKS_ALLOW_CIDRS" => network})[:policy].allow == [network]),
        else: assert(refused(%{"WEBHOOKS_ALLOW_CIDRS" => network}) =~ "WEBHOOKS_ALLOW_CIDRS: ")
    end
  end

  test "there may be as many networks as the policy takes" do
    networks = fn count ->
      Enum.map_join(1..count, ",", &"10.0.#{div(&1, 256)}.#{rem(&1, 256)}")
    end

    allow = config(%{"WEBHOOKS_ALLOW_CIDRS" => networks.(256)})[:policy].allow
    assert {:ok, _url} = Native.check_url("https://example.com/", %{allow: allow})

    assert {:error, :too_many_entries} =
             Native.check_url("https://example.com/", %{allow: ["10.1.0.0/16" | allow]})

    assert refused(%{"WEBHOOKS_ALLOW_CIDRS" => networks.(257)}) =~ ~r/\AWEBHOOKS_ALLOW_CIDRS: /
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
