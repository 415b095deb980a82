defmodule Plausible.Webhooks.WebhookTest do
  use ExUnit.Case, async: true

  alias Plausible.Webhooks.{Event, Webhook}

  doctest Webhook

  @url "https://example.com/hook"
  @base %{url: @url, events: ["goal.completed"]}

  defp new(attrs, opts \\ []), do: Webhook.new(7, Map.merge(@base, Map.new(attrs)), opts)

  defp errors(attrs) do
    assert {:error, errors} = new(attrs)
    errors
  end

  defp webhook!(attrs \\ []) do
    assert {:ok, webhook} = new(attrs, now_ms: 1_000)
    webhook
  end

  describe "new/3" do
    test "fills in defaults" do
      assert {:ok, webhook} = new(%{}, now_ms: 1_700_000_000_000, id: "wh_1")

      assert %Webhook{
               id: "wh_1",
               site_id: 7,
               name: "",
               url: @url,
               enabled: true,
               events: ["goal.completed"],
               goals: :all,
               spike_threshold: nil,
               drop_threshold: nil,
               traffic_min_interval_s: 43_200,
               headers: [],
               secrets: [
                 %{key: key, created_at_ms: 1_700_000_000_000, expires_at_ms: nil}
               ],
               disabled_reason: nil,
               failing_since_ms: nil,
               version: 0,
               inserted_at_ms: 1_700_000_000_000,
               updated_at_ms: 1_700_000_000_000
             } = webhook

      assert Webhook.secret?(key)
      assert byte_size(Base.decode64!(String.replace_prefix(key, "whsec_", ""))) == 32
      assert {:ok, %Webhook{id: "wh_" <> _, secrets: [%{key: other}]}} = new(%{})
      assert other != key
    end

    test "takes atom and string keys, a map or a keyword list, values from a form" do
      assert {:ok, from_form} =
               Webhook.new(7, %{
                 "url" => @url,
                 "events" => ["traffic.drop", "goal.completed", "traffic.spike"],
                 "name" => "  Zapier  ",
                 "enabled" => "false",
                 "goals" => ["3", "5", "3"],
                 "spike_threshold" => "300",
                 "drop_threshold" => "1",
                 "traffic_min_interval_s" => "3600",
                 "headers" => [%{"name" => "X-Token", "value" => "t 1"}]
               })

      assert {:ok, from_code} =
               Webhook.new(7,
                 url: @url,
                 events: ["goal.completed", "traffic.spike", "traffic.drop"],
                 name: "Zapier",
                 enabled: false,
                 goals: [3, 5],
                 spike_threshold: 300,
                 drop_threshold: 1,
                 traffic_min_interval_s: 3600,
                 headers: %{"X-Token" => "t 1"}
               )

      same =
        [:name, :enabled, :events, :goals, :spike_threshold, :drop_threshold] ++
          [:traffic_min_interval_s, :headers, :url]

      assert Map.take(from_form, same) == Map.take(from_code, same)
      assert from_form.events == ["goal.completed", "traffic.spike", "traffic.drop"]
      assert from_form.headers == [{"X-Token", "t 1"}]
      assert from_form.goals == [3, 5]
    end

    test "reports all errors at once" do
      assert {:error, errors} =
               Webhook.new(7, %{
                 :events => ["traffic.spike", "traffic.drop"],
                 :name => 1,
                 :enabled => "maybe",
                 :goals => "some",
                 :spike_threshold => 0,
                 :traffic_min_interval_s => -1,
                 :headers => "x",
                 :secret => "whsec_",
                 :site_id => 9,
                 "colour" => "blue"
               })

      wrong = ~w(url name enabled goals spike_threshold drop_threshold)a
      wrong = wrong ++ [:traffic_min_interval_s, :headers, :secret, :site_id, "colour"]
      assert errors |> Map.keys() |> Enum.sort() == Enum.sort(wrong)

      assert Enum.all?(errors, fn {_name, message} -> is_binary(message) and message != "" end)
      assert errors.url == "is required"
      assert errors.drop_threshold == "is required for traffic.drop"
      assert errors["colour"] == "is not an attribute that can be set"
    end

    test "internal fields cannot be set" do
      for field <- Map.keys(%Webhook{}) -- [:__struct__],
          field not in ~w(name url enabled events goals spike_threshold drop_threshold)a,
          field not in ~w(traffic_min_interval_s headers)a,
          key <- [field, Atom.to_string(field)] do
        assert errors(%{key => 1}) == %{key => "is not an attribute that can be set"}
      end

      # Whatever the name: no atom is made of it.
      assert Map.keys(errors(%{"no_such_atom_was_ever_made" => 1})) == [
               "no_such_atom_was_ever_made"
             ]

      assert_raise ArgumentError, fn ->
        String.to_existing_atom("no_such_atom_" <> "was_ever_made")
      end
    end

    test "the same attribute by both kinds of key is refused" do
      assert errors(%{"url" => "https://other.example.com/"}) == %{url: "is given twice"}

      assert {:error, %{name: "is given twice"}} =
               Webhook.new(7, [name: "a", name: "b"] ++ Map.to_list(@base))
    end

    test "wrong types of attributes, site id and options raise" do
      for bad <- [nil, "url", 1, [1], [:url], %Webhook{}, {:url, @url}] do
        assert_raise ArgumentError, fn -> Webhook.new(7, bad) end
      end

      assert_raise ArgumentError, fn -> Webhook.new("7", @base) end
      assert_raise ArgumentError, fn -> Webhook.new(7, Map.put(@base, 1, 2)) end
      assert_raise ArgumentError, fn -> Webhook.new(7, @base, polcy: %{}) end
      assert_raise ArgumentError, fn -> Webhook.change(@base, @base) end
    end
  end

  describe "url" do
    test "is kept as the core normalizes it" do
      assert webhook!(url: "HTTPS://EXAMPLE.com:443/a/../b?q=1").url ==
               "https://example.com/b?q=1"
    end

    test "is judged by the policy given" do
      assert {:error, %{url: "must begin with https://"}} = new(url: "http://example.com/")

      assert {:ok, %{url: "http://example.com/"}} =
               new(%{url: "http://example.com/"}, policy: %{https_only: false})

      loopback = "http://127.0.0.1:9999/"
      assert {:error, %{url: refused}} = new(%{url: loopback}, policy: %{https_only: false})
      assert refused =~ "must not name a private or reserved address"

      assert {:ok, %{url: ^loopback}} =
               new(%{url: loopback}, policy: %{https_only: false, allow: ["127.0.0.1:9999"]})
    end

    test "every refusal is in plain words and repeats nothing of path or query" do
      for {url, words} <- [
            {"https://example.com/" <> String.duplicate("s3cret", 400), "at most 2048 bytes"},
            {"ftp://example.com/s3cret", "must begin with"},
            {"https://u:s3cret@example.com/", "user name or password"},
            {"https://example.com/#s3cret", "fragment"},
            {"https://localhost/s3cret", "public on the internet"},
            {"https://10.0.0.1/s3cret", "address"},
            {"https://example.com:22/s3cret", "port"},
            {"https:///s3cret", "host"},
            {"", "must begin with"},
            {"s3cret", ""},
            {"https://exa mple.com/s3cret", ""},
            {"https://example.com/\0s3cret", ""}
          ] do
        assert {:error, %{url: message} = errors} = new(url: url)
        assert map_size(errors) == 1
        assert message =~ words
        refute message =~ "s3cret"
        refute message =~ "(", "no words for #{inspect(url)}: #{message}"
      end

      for bad <- [nil, 1, :url, ~c"https://example.com/", %{}],
          do: assert(errors(url: bad).url == "must be text")
    end
  end

  describe "name" do
    test "at most 100 characters of any script, trimmed" do
      assert webhook!(name: String.duplicate("ä", 100)).name == String.duplicate("ä", 100)
      assert webhook!(name: " 🦊 ").name == "🦊"
      # Persian needs the non-joiner, and many an emoji the joiner.
      for name <- ["می‌خواهم", "👨‍👩‍👧"], do: assert(webhook!(name: name).name == name)
      assert webhook!(name: nil).name == ""
      # One character of several code points.
      assert webhook!(name: String.duplicate("e\u0301", 100)).name =~ "e\u0301"
      assert errors(name: String.duplicate("a", 101)).name =~ "at most 100"
      assert errors(name: "a" <> String.duplicate("\u0301", 10_000_000)).name =~ "at most 100"
    end

    test "no control or format characters, no invalid UTF-8" do
      for bad <- ["a\nb", "a\0b", "a\tb", "a\u007Fb", "a\u0085b", "a\u202Eb", "a\u2028b"] do
        assert errors(name: bad).name == "must not hold control characters"
      end

      assert errors(name: <<"a", 255>>).name =~ "must be text"
      assert errors(name: 1).name == "must be text"
    end
  end

  describe "events" do
    test "are a non-empty choice, kept in the order of the catalogue, each once" do
      all = Event.subscribable_types()
      thresholds = %{spike_threshold: 1, drop_threshold: 1}

      assert webhook!(Map.put(thresholds, :events, Enum.reverse(all) ++ all)).events == all

      for bad <- [nil, [], "goal.completed", %{}, ["goal.completed" | "x"]] do
        assert errors(events: bad).events =~ "must be a list of at least one of goal.completed"
      end
    end

    test "an unknown one is named, shortly" do
      assert errors(events: ["goal.completed", "goal.lost"]).events =~ ~s("goal.lost" is none of)
      # It is always sent, so a webhook cannot subscribe to it.
      assert errors(events: ["webhook.test"]).events =~ "webhook.test"
      assert errors(events: [nil]).events != nil
      assert errors(events: [:"goal.completed"]).events =~ "is none of"
      assert byte_size(errors(events: [String.duplicate("x", 10_000)]).events) < 250
    end

    test "traffic.resolved needs traffic.spike or traffic.drop" do
      assert errors(events: ["traffic.resolved"]).events =~ "needs traffic.spike or traffic.drop"
      assert webhook!(events: ["traffic.resolved", "traffic.drop"], drop_threshold: 5)

      following = [events: ["traffic.resolved", "traffic.drop"], drop_threshold: :notifier]
      assert errors(following).events =~ "needs a threshold that is not notifier"
    end
  end

  test "thresholds are whole numbers, required by their type, and go away when emptied" do
    for {field, type} <- [spike_threshold: "traffic.spike", drop_threshold: "traffic.drop"] do
      for {given, kept} <- [{1, 1}, {"12", 12}, {1_000_000_000, 1_000_000_000}] do
        assert Map.fetch!(webhook!(%{field => given, :events => [type]}), field) == kept
      end

      # As the host's notifier says.
      for given <- [:notifier, "notifier"] do
        assert Map.fetch!(webhook!(%{field => given, :events => [type]}), field) == :notifier
      end

      for empty <- [nil, ""] do
        assert Map.fetch!(webhook!(%{field => empty}), field) == nil

        assert errors(%{field => empty, :events => [type]}) == %{
                 field => "is required for #{type}"
               }
      end

      for bad <-
            [0, -1, 1.5, 1_000_000_001, Integer.pow(10, 100), true, [1]] ++
              ["1.5", "1e3", " 1", "1 ", "x", String.duplicate("9", 1_000_000)] do
        assert errors(%{field => bad, :events => [type]})[field] =~ "must be an integer from 1"
      end
    end

    for bad <- [-1, nil, 7 * 86_400 + 1] do
      assert errors(traffic_min_interval_s: bad).traffic_min_interval_s =~ "from 0 to 604800"
    end
  end

  test "goals are all of them, or up to 1 000 ids" do
    assert webhook!(goals: "all").goals == :all
    assert webhook!(goals: [2, "1", 2]).goals == [2, 1]
    assert length(webhook!(goals: Enum.to_list(1..1_000)).goals) == 1_000
    assert errors(goals: Enum.to_list(1..1_001)).goals =~ "at most 1000"

    for bad <- [nil, "1", 1, ["x"], [1.0], [nil], [0], [-1], [1 | 2], [Integer.pow(2, 63)], %{}] do
      assert errors(goals: bad).goals =~ "must be all"
    end

    # No goal at all would never fire; without goal events it does not matter.
    assert errors(goals: []).goals =~ "at least one goal"
    assert webhook!(goals: [], events: ["traffic.spike"], spike_threshold: 1).goals == []
  end

  test "enabled is a boolean, also as a form writes it" do
    for yes <- [true, "true", "on", "1"], do: assert(webhook!(enabled: yes).enabled == true)
    for no <- [false, "false", "off", "0"], do: assert(webhook!(enabled: no).enabled == false)

    for bad <- [nil, 1, "yes please", []],
        do: assert(errors(enabled: bad).enabled =~ "true or false")
  end

  test "headers in every spelling; the core's objection names which one, never its value" do
    for given <- [
          [{"x-a", "1"}],
          [%{name: "x-a", value: "1"}],
          [%{"name" => "x-a", "value" => "1"}],
          %{"x-a" => "1"},
          %{"x-a": "1"},
          ["x-a": "1"]
        ] do
      assert webhook!(headers: given).headers == [{"x-a", "1"}]
    end

    assert webhook!(headers: []).headers == []

    for {bad, words} <- [
          {[{"x-a", "1"}, {"host", "s3cret"}], "header 2 has a name that is reserved"},
          {[{"webhook-id", "s3cret"}], "header 1 has a name that is reserved"},
          {[{"x a", "s3cret"}], "header 1 has a name that is not valid"},
          {[{"x-a", "s3cret\r\nb: c"}], "header 1 has a value that is not valid"},
          {[{"x-a", "1"}, {"X-A", "s3cret"}], "header 2 has a name that was given before"},
          {for(i <- 1..21, do: {"x-#{i}", "s3cret"}), "must be at most 20"},
          {for(i <- 1..20, do: {"x-#{i}", String.duplicate("s3cret", 200)}), "12 KiB"}
        ] do
      assert errors(headers: bad).headers =~ words
      refute errors(headers: bad).headers =~ "s3cret"
    end

    wrong = [[{"x-a", 1}], [{1, "1"}], [{"x-a"}], [%{name: "x"}], [{"a", "b"} | 1]]

    for bad <- [nil, "x-a: 1" | wrong] do
      assert errors(headers: bad).headers =~ "must be a list of names and values"
    end
  end

  describe "change/3" do
    test "changes what is given and nothing else" do
      before = %{
        webhook!(name: "a", goals: [1], headers: %{"x-a" => "1"})
        | version: 4,
          failing_since_ms: 9
      }

      assert {:ok, changed} =
               Webhook.change(before, %{"name" => "b", "enabled" => false}, now_ms: 2_000)

      assert changed == %{before | name: "b", enabled: false, updated_at_ms: 2_000}
      assert Webhook.change(before, %{}, now_ms: 2_000) == {:ok, %{before | updated_at_ms: 2_000}}
    end

    test "judges attributes that depend on each other as they will be" do
      webhook = webhook!(events: ["traffic.spike"], spike_threshold: 10)

      assert {:ok, _} =
               Webhook.change(webhook, %{events: ["goal.completed"], spike_threshold: nil})

      assert Webhook.change(webhook, %{spike_threshold: nil}) ==
               {:error, %{spike_threshold: "is required for traffic.spike"}}

      assert {:error, %{drop_threshold: "is required" <> _}} =
               Webhook.change(webhook, %{events: ["traffic.spike", "traffic.drop"]})

      assert {:error, %{goals: _}} = Webhook.change(webhook!(), %{goals: []})
    end

    test "judges by the same rules; one error leaves everything unchanged" do
      assert {:error, errors} =
               Webhook.change(webhook!(), %{name: "ok", url: "http://10.0.0.1/", events: []})

      assert errors |> Map.keys() |> Enum.sort() == [:events, :url]
    end

    test "an old URL that the policy now refuses does not block a change" do
      {:ok, webhook} = new(%{url: "http://example.com/"}, policy: %{https_only: false})
      assert {:ok, %{name: "b"}} = Webhook.change(webhook, %{name: "b"})
      assert {:error, %{url: _}} = Webhook.change(webhook, %{url: webhook.url})
    end
  end

  test "active? depends on the owner's choice and on our disabling" do
    assert Webhook.active?(webhook!())
    refute Webhook.active?(webhook!(enabled: false))
    refute Webhook.active?(%{webhook!() | disabled_reason: :gone})
  end

  test "destination/1 is the host alone" do
    for {url, host} <- [
          {"https://example.com/hook?token=1", "example.com"},
          {"https://example.com:8443/", "example.com"},
          {"https://[2606:4700::1111]/x", "2606:4700::1111"},
          {"https://1.1.1.1/", "1.1.1.1"},
          {"nonsense", nil},
          {"https://exa mple/", nil},
          {"https://example.com/" <> <<255>>, nil}
        ] do
      assert Webhook.destination(url) == host
      assert Webhook.destination(%Webhook{url: url}) == host
    end

    assert Webhook.destination(%Webhook{}) == nil
    # As an actor sees it who may only read.
    assert Webhook.destination("https://example.com/\u2026") == "example.com"
  end

  test "inspecting shows no secret, no header value, nothing of path or query" do
    webhook =
      webhook!(
        url: "https://hooks.example.com/services/T000/s3cret?key=s3cret",
        headers: %{"x-token" => "s3cret"},
        name: "Alerts"
      )

    [%{key: key}] = webhook.secrets

    for shown <- [inspect(webhook), inspect(%{state: [webhook]}, limit: :infinity)] do
      refute shown =~ "s3cret"
      refute shown =~ "services"
      refute shown =~ key
      refute shown =~ "whsec_"
      assert shown =~ "hooks.example.com"
      assert shown =~ "x-token"
      assert shown =~ "Alerts"
      assert shown =~ webhook.id
    end

    # Even if the fields hold invalid values.
    assert inspect(%Webhook{}) =~ "#Plausible.Webhooks.Webhook<"

    assert inspect(%Webhook{url: 1, headers: nil, secrets: :none}) =~
             "#Plausible.Webhooks.Webhook<"

    assert inspect(%Webhook{headers: [:odd], events: nil}) =~ "#Plausible.Webhooks.Webhook<"
  end
end
