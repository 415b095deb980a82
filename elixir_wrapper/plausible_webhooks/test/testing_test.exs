defmodule Plausible.Webhooks.TestingTest do
  # The helpers for a host's tests, as a host uses them: under the instance's default name.
  use ExUnit.Case, async: false

  import Plausible.Webhooks.Testing

  alias Plausible.Webhooks.Test.TestHost

  @moduletag :capture_log

  setup do
    host = TestHost.new()
    TestHost.put(host, {:role, :system}, :owner)
    webhooks = start_webhooks!(host: {TestHost, host})
    subscribe!(webhooks, 1, ["goal.completed"])
    %{webhooks: webhooks}
  end

  defp visit(name) do
    event = %{site_id: 1, name: name, hostname: "site1.example", pathname: "/"}
    :ok = Plausible.Webhooks.events_buffered([%{clickhouse_event: event}])
  end

  test "an event that completes a goal is delivered" do
    visit("Signup")
    assert %{"data" => %{"goal" => %{"name" => "Signup"}}} = assert_delivered("goal.completed")
    refute_delivered("goal.completed", 50)
  end

  test "what is not delivered, or is by mistake, fails the test" do
    visit("pageview")
    refute_delivered("goal.completed", 50)

    assert_raise ExUnit.AssertionError, ~r/no goal.completed was delivered/, fn ->
      assert_delivered("goal.completed", 10)
    end

    visit("Signup")

    assert_raise ExUnit.AssertionError, ~r/a goal.completed was delivered: %\{/, fn ->
      refute_delivered("goal.completed", 10_000)
    end
  end

  test "an attribute that is not valid raises", %{webhooks: webhooks} do
    assert_raise Plausible.Webhooks.Error, ~r/spike_threshold is required/, fn ->
      subscribe!(webhooks, 1, ["traffic.spike"])
    end
  end
end
