defmodule Plausible.Webhooks.Ingest.PayloadSampleTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.{Event, JsonSchema, Native}
  alias Plausible.Webhooks.Ingest.Payload

  @now_ms 1_795_428_930_123
  @site %{id: 7, domain: "example.com"}

  describe "samples" do
    defp goal(attrs) do
      Map.merge(
        %{
          id: 3,
          name: "Mine",
          event_name: nil,
          page_path: nil,
          scroll_threshold: -1,
          custom_props: %{},
          currency: nil
        },
        Map.new(attrs)
      )
    end

    test "there is one of every type, after its schema" do
      for type <- Event.types(),
          site <- [@site, Map.put(@site, :dashboard_url, "https://p.test/x")] do
        assert {:ok, json} = type |> Payload.sample(site, nil, @now_ms) |> Payload.encode()
        assert JsonSchema.errors(type, json) == []
        assert json =~ "example.com"
        # Nobody takes it for the real thing, or the real thing for it.
        assert json =~ ~r/^{"type":"#{type}","timestamp":"[^"]+","data":{.*},"test":true}$/
        {:ok, real} = Payload.encode(%{Payload.sample(type, site, nil, @now_ms) | test: false})
        assert String.replace(json, ~s(,"test":true}), "}") == real
      end
    end

    test "a goal's sample is the site's own goal" do
      for {attrs, name, path, revenue} <- [
            {[event_name: "Buy", currency: "EUR"], "Buy", "/register", "EUR"},
            {[page_path: "/blog/**"], "pageview", "/blog/example", nil},
            {[page_path: "/docs", scroll_threshold: 50], "engagement", "/docs", nil}
          ] do
        goal = goal([custom_props: %{"a" => "b"}] ++ attrs)
        event = Payload.sample("goal.completed", @site, goal, @now_ms)
        assert event.goal_id == 3
        {:ok, json} = Payload.encode(event)
        assert JsonSchema.errors("goal.completed", json) == []

        {:ok, %{"data" => %{"goal" => %{"id" => 3}, "completion" => completion}}} =
          Native.decode(json)

        assert {completion["event_name"], completion["pathname"]} == {name, path}
        assert completion["props"] == %{"a" => "b"}
        assert completion["revenue"]["currency"] == revenue
      end
    end
  end

  describe "samples of a site with limits" do
    test "hold neither properties nor revenue" do
      tells = %{props: %{"url" => true}, revenue: false}

      for goal <- [nil, goal(event_name: "Buy", currency: "EUR", custom_props: %{"plan" => "a"})] do
        {:ok, json} =
          "goal.completed" |> Payload.sample(@site, goal, @now_ms, tells) |> Payload.encode()

        assert JsonSchema.errors("goal.completed", json) == []
        {:ok, %{"data" => %{"completion" => completion}}} = Native.decode(json)
        assert {completion["props"], completion["revenue"]} == {%{}, nil}
      end
    end
  end
end
