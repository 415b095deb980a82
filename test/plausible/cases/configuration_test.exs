defmodule Plausible.Webhooks.RealTree.ConfigurationTest do
  # What config/runtime.exs makes of the variables in each environment of Plausible.
  use ExUnit.Case, async: false

  @base %{
    "BASE_URL" => "http://localhost:8000",
    "SECRET_KEY_BASE" => String.duplicate("configuration", 6),
    "DISABLE_CRON" => "true"
  }

  for env <- [:prod, :dev, :ce, :ce_dev] do
    test "webhooks are on in #{env}, and off with WEBHOOKS_ENABLED=false" do
      assert [_ | _] = options = read(unquote(env), %{})
      assert options[:vault]
      assert read(unquote(env), %{"WEBHOOKS_ENABLED" => "false"}) == nil
    end
  end

  for env <- [:test, :ce_test] do
    test "webhooks are off in #{env}, and on with WEBHOOKS_ENABLED=true" do
      assert read(unquote(env), %{}) == nil
      assert [_ | _] = read(unquote(env), %{"WEBHOOKS_ENABLED" => "true"})
    end
  end

  test "a variable can be a file of CONFIG_DIR" do
    folder = Path.join(System.tmp_dir!(), "webhooks-config-#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(folder) end)
    File.mkdir_p!(folder)
    File.write!(Path.join(folder, "WEBHOOKS_PER_SITE_MAX"), "7\n")
    assert read(:prod, %{"CONFIG_DIR" => folder})[:webhooks_per_site_max] == 7
  end

  test "a value that cannot be parsed stops Plausible, and is named" do
    assert_raise ArgumentError, ~r/WEBHOOKS_RETRY_DELAYS/, fn ->
      read(:prod, %{"WEBHOOKS_RETRY_DELAYS" => "10,,60"})
    end
  end

  # Plausible's file reads and sets variables of the VM, so they are put back.
  defp read(env, variables) do
    before = System.get_env()

    try do
      for {name, _value} <- before, String.starts_with?(name, "WEBHOOKS_"), do: System.delete_env(name)
      System.put_env(Map.merge(@base, variables))

      "config/runtime.exs"
      |> Config.Reader.read!(env: env, target: :host)
      |> get_in([:plausible, Plausible.Webhooks])
    after
      for {name, _value} <- System.get_env(), not is_map_key(before, name), do: System.delete_env(name)
      System.put_env(before)
    end
  end
end
