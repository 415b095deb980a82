defmodule Plausible.Webhooks.OptionsTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.Options
  alias Plausible.Webhooks.Test.{SwitchStore, TestHost}
  alias Plausible.Webhooks.Vault

  doctest Options

  defmodule Wire do
    def listener(_instance, _options), do: nil
    def tell(_instance, _options, _message), do: :ok
  end

  defmodule OnlyCan do
    def can?(_host, _actor, _action, _site_id), do: true
  end

  defmodule Silent do
    def handle_event(_event, _measurements, _metadata, _argument), do: :ok
  end

  @required [store: {SwitchStore, []}, host: {TestHost, nil}]

  defp invalid(options) do
    assert {:error, {:invalid_option, name, text}} = Options.new(@required ++ options)
    assert is_binary(text)
    name
  end

  test "the defaults are those that are documented" do
    assert {:ok, options} = Options.new(@required)

    assert %{
             name: Plausible.Webhooks,
             retry_delays_ms: [10_000, 600_000, 14_400_000],
             jitter_percent: 20,
             park_after_ms: 60_000,
             retry_after_max_ms: 21_600_000,
             timeout_ms: 15_000,
             connect_timeout_ms: 5_000,
             lane_in_flight_max: 8,
             lane_rate_per_s: 50,
             destination_in_flight_max: 64,
             destination_rate_per_s: 200,
             in_flight_max: 4_096,
             waiting_max: 100_000,
             outbox_max: 10_000,
             webhooks_per_site_max: 20,
             tests_per_minute: 10,
             policy: %{https_only: true, allow: []}
           } = options
  end

  test "missing options are named" do
    assert {:error, {:invalid_option, :store, "is required"}} = Options.new(host: {TestHost, nil})
    assert {:error, {:invalid_option, :host, _}} = Options.new(store: {SwitchStore, []})
    assert {:error, {:invalid_option, :options, _}} = Options.new(:nonsense)
    assert {:error, {:invalid_option, :options, _}} = Options.new([:store])
  end

  test "an option that does not exist or is given twice is named" do
    assert invalid(outbox_size: 3) == :outbox_size
    assert invalid(drain_ms: 1, drain_ms: 2) == :drain_ms
  end

  test "every limit refuses what is out of its range or no integer" do
    limits = for {name, value} <- Map.from_struct(%Options{}), is_integer(value), do: name
    assert length(limits) > 20

    for name <- limits, value <- [-1, 1.5, "5", nil, :infinity, 1_000_000_000_000] do
      assert invalid([{name, value}]) == name
    end
  end

  test "the retry schedule has at most twelve positive steps" do
    assert {:ok, %{retry_delays_ms: []}} = Options.new(@required ++ [retry_delays_ms: []])

    assert {:ok, _} = Options.new(@required ++ [retry_delays_ms: List.duplicate(1, 12)])

    for wrong <- [List.duplicate(1, 13), [0], [-1], ["1"], [1 | 2], 5, [700_000_000]] do
      assert invalid(retry_delays_ms: wrong) == :retry_delays_ms
    end
  end

  test "the policy is completed and its parts are checked" do
    assert {:ok, %{policy: policy}} = Options.new(@required ++ [policy: [https_only: false]])
    assert policy == %{https_only: false, allow: []}

    for wrong <- [
          %{https_only: nil},
          %{allow_private: true},
          %{allow: ["10.0.0.0/8", 1]},
          %{allow: ["10.0.0.0/8" | "10.1.0.0/16"]},
          %{allow: ["not an entry"]},
          %{allow: ["10.0.0.1/8"]},
          %{allow: List.duplicate("10.0.0.0/8", 257)},
          %{ports: [443]},
          %{redirects: true},
          :strict,
          [:https_only]
        ] do
      assert invalid(policy: wrong) == :policy
    end

    for everything <- ["0.0.0.0/0", "0.0.0.0/0:*", "::/0", "[::/0]:443"] do
      assert {:error, {:invalid_option, :policy, why}} =
               Options.new(@required ++ [policy: [allow: ["n8n:5678", everything]]])

      assert why =~ "allow: #{inspect(everything)} would allow every address"
    end
  end

  test "store, host and observers must implement their behaviours" do
    for wrong <- [{String, []}, {NoSuchModule, []}, {SwitchStore, :path}, SwitchStore, nil] do
      assert {:error, {:invalid_option, :store, _}} =
               Options.new(store: wrong, host: {TestHost, nil})
    end

    for wrong <- [{String, nil}, {NoSuchModule, nil}, TestHost, nil] do
      assert {:error, {:invalid_option, :host, _}} =
               Options.new(store: {SwitchStore, []}, host: wrong)
    end

    # With all of its callbacks.
    assert {:error, {:invalid_option, :host, text}} =
             Options.new(store: {SwitchStore, []}, host: {OnlyCan, nil})

    assert text =~ ~r"OnlyCan is not a host: \w+/\d is missing"

    assert {:ok, _} = Options.new(@required ++ [observers: [{Silent, nil}]])

    for wrong <- [[Silent], [{String, nil}], {Silent, nil}, nil] do
      assert invalid(observers: wrong) == :observers
    end
  end

  test "connect_timeout_ms must not exceed timeout_ms" do
    assert invalid(timeout_ms: 1_000, connect_timeout_ms: 2_000) == :connect_timeout_ms
    # The default connect time counts too.
    assert invalid(timeout_ms: 1_000) == :connect_timeout_ms
  end

  test "the parts of directory and traffic are checked by name and range" do
    traffic = [tick_ms: :infinity, lease_ms: 90_000, concurrency: 1, site_timeout_ms: 1_000]
    directory = [refresh_ms: 50, sites_per_refresh: 0, start_wait_ms: 0]
    assert {:ok, options} = Options.new(@required ++ [traffic: traffic, directory: directory])
    assert %{traffic: ^traffic, directory: ^directory} = options

    for wrong <- [[x: 1], [tick_ms: -1], [tick_ms: "1"], [lease_ms: :infinity], [deliver: 1]],
        do: assert(invalid(traffic: wrong) == :traffic)

    for wrong <- [[x: 1], [refresh_ms: 0], [concurrency: nil], [compare: nil], [instance: X]],
        do: assert(invalid(directory: wrong) == :directory)

    assert {:error, {_, :traffic, "tick_ms must be an integer from 10 to 86400000, or :infinity"}} =
             Options.new(@required ++ [traffic: [tick_ms: 0]])

    assert {:error, {_, :directory, "x is not a part of it"}} =
             Options.new(@required ++ [directory: [x: 1]])
  end

  test "an instance of another name has a SQLite process of its own" do
    store = {Plausible.Webhooks.Store.SQLite, path: "/tmp/x.db"}
    options = [store: store, host: {TestHost, nil}]
    assert {:ok, %{store: ^store}} = Options.new(options)
    assert {:ok, %{store: {_, own}}} = Options.new([name: Other] ++ options)
    assert own[:name] == Other.SQLite
  end

  test "names, files, texts" do
    for wrong <- [nil, true, "name"], do: assert(invalid(name: wrong) == :name)
    assert invalid(ca_file: "/no/such/file") == :ca_file
    assert invalid(ca_file: 1) == :ca_file
    assert invalid(ca_file: __ENV__.file) == :ca_file
    for wrong <- ["", "a\r\nb", "ü", 1], do: assert(invalid(user_agent: wrong) == :user_agent)
    for wrong <- [nil, true, [1]], do: assert(invalid(traffic: wrong) == :traffic)
  end

  test "the vault: keys, a file, or a vault" do
    key = :crypto.strong_rand_bytes(32)
    assert {:ok, %{vault: %Vault{}}} = Options.new(@required ++ [vault: [key]])
    assert {:ok, vault} = Vault.new([key])
    assert {:ok, %{vault: ^vault}} = Options.new(@required ++ [vault: vault])

    path = Path.join(System.tmp_dir!(), "options-#{System.unique_integer([:positive])}.key")
    on_exit(fn -> File.rm(path) end)
    # Whether a missing one may be made is for the store to say.
    assert {:ok, %{vault: {:file, ^path}}} = Options.new(@required ++ [vault: {:file, path}])
    refute File.exists?(path)
    {:ok, made} = Vault.create_file(path)
    assert {:ok, %{vault: ^made}} = Options.new(@required ++ [vault: {:file, path}])

    File.write!(path, "short\n")

    for wrong <- [[], ["short"], [1], {:file, path}, "key"] do
      assert invalid(vault: wrong) == :vault
    end
  end

  test "the store's options are not printed" do
    {:ok, options} = Options.new(store: {SwitchStore, password: "hunter2"}, host: {TestHost, nil})
    refute inspect(options) =~ "hunter2"
    assert inspect(options) =~ "SwitchStore"
    {:ok, options} = Options.new(@required ++ [cluster: {Wire, password: "hunter2"}])
    refute inspect(options) =~ "hunter2"
    assert inspect(options) =~ "Wire"
  end

  test "the cluster is a module that can tell others, with a keyword list" do
    assert {:ok, %{cluster: nil}} = Options.new(@required)
    assert {:ok, %{cluster: {Wire, []}}} = Options.new(@required ++ [cluster: {Wire, []}])

    for wrong <- [Wire, {String, []}, {NoSuchModule, []}, {Wire, :pubsub}, {Wire, [1]}] do
      assert invalid(cluster: wrong) == :cluster
    end
  end
end
