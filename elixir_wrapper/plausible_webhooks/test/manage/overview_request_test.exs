defmodule Plausible.Webhooks.Manage.OverviewRequestTest do
  # What leaves, or would: a URL, a request, a body.
  use Plausible.Webhooks.Test.InstanceCase, async: true

  alias Plausible.Webhooks, as: API
  alias Plausible.Webhooks.{Event, Native}

  @moduletag :capture_log

  describe "a URL" do
    test "is judged as saving it would", context do
      context = start!(context)

      for url <- [
            "http://127.0.0.1:8000",
            "HTTPS://Example.COM:443/a/../b?x=1",
            "ftp://example.com/",
            "http://224.0.0.1/",
            "https://user:pw@example.com/",
            "https://example.com/#fragment",
            "not a url",
            "https://example.com:22/",
            String.duplicate("x", 3_000),
            "",
            nil,
            12,
            <<255>>
          ] do
        attributes = %{url: url, events: ["goal.completed"]}

        case create_webhook(context, attributes) do
          {:ok, webhook} ->
            assert {:ok, %{url: same, host_unicode: nil}} = API.check_url(context.name, url)
            assert same == webhook.url

          {:error, %Error{reason: {:invalid, %{url: text}}}} ->
            assert API.check_url(context.name, url) == {:error, text}
        end
      end

      assert API.check_url(context.name, "https://Example.com:8443/x?y=1") ==
               {:ok,
                %{
                  url: "https://example.com:8443/x?y=1",
                  scheme: "https",
                  host: "example.com",
                  host_unicode: nil,
                  port: 8_443
                }}
    end

    test "goes by the instance's policy", context do
      context = start!(context, policy: %{https_only: true})

      assert API.check_url(context.name, "http://example.com/") ==
               {:error, "must begin with https://"}

      assert {:error, _text} = API.check_url(context.name, "https://127.0.0.1/")
    end

    test "has the Unicode form of an international host", context do
      context = start!(context)

      for {url, host, readable} <- [
            {"https://bücher.example/", "xn--bcher-kva.example", "bücher.example"},
            {"https://xn--bcher-kva.example/", "xn--bcher-kva.example", "bücher.example"},
            {"https://例え.テスト/", "xn--r8jz45g.xn--zckzah", "例え.テスト"},
            # A joiner, which IDNA allows here, cannot be seen.
            {"https://xn--11b2ezcw70k.example/", "xn--11b2ezcw70k.example", nil},
            {"https://[2001:470::1]/", "2001:470::1", nil}
          ] do
        assert {:ok, %{host: ^host, host_unicode: ^readable}} = API.check_url(context.name, url)
      end

      # What would lie: a right-to-left override, a soft hyphen, a fraction slash, a
      # full-width full stop, private use, a leading mark, a second spelling of ASCII.
      for label <- ~w(ab-g4t ab-5da ab-c6t ab-yu3n ab-je4l a-wbb example-) do
        assert {:error, "must name a valid host"} =
                 API.check_url(context.name, "https://xn--#{label}.example/")
      end
    end
  end

  describe "a request" do
    # What the engine adds for HTTP itself.
    @http ["host", "accept", "content-length", "connection"]

    test "is what is sent, header for header", context do
      for user_agent <- [nil, "Us/2"] do
        context = start!(context, user_agent: user_agent)
        headers = %{"X-Key" => "token", "x-other" => "b c"}
        webhook = webhook!(context, "/hook?token=t", %{headers: headers})
        {:ok, _} = rotate_secret(context, webhook.id, 60_000)
        before = System.system_time(:second)
        sent = delivery(webhook, body: ~s({"type":"goal.completed","ü":1}))
        :ok = Outbox.accept(context.instance, [sent])
        await_state(context, sent.id, :delivered)
        received = List.last(HttpReceiver.requests(context.receiver, "/hook"))

        {:ok, shown} = request(context, sent.id)
        assert Enum.sort(Map.keys(shown)) == [:body, :headers, :timestamp, :url]
        assert shown.url == webhook.url
        assert shown.body == received.body
        assert shown.timestamp in before..System.system_time(:second)

        by_name = Map.new(shown.headers, fn {name, value} -> {String.downcase(name), value} end)
        changing = ["webhook-timestamp", "webhook-signature"]
        assert Map.drop(by_name, changing) == Map.drop(received.headers, changing ++ @http)
        assert by_name["webhook-timestamp"] == Integer.to_string(shown.timestamp)

        # Both secrets sign, as those of the request that was sent.
        assert [_, _] = String.split(by_name["webhook-signature"], " ")
        {:ok, secrets} = reveal_secret(context, webhook.id)

        for %{key: key} <- secrets do
          at = shown.timestamp
          signature = by_name["webhook-signature"]
          assert :ok = Native.verify([key], sent.id, at, signature, shown.body, at, 1)
        end

        stop!(context)
      end
    end

    test "needs :manage and an existing webhook", context do
      context = start!(context)
      webhook = webhook!(context, "/hook")
      sent = delivery(webhook)
      :ok = Outbox.accept(context.instance, [sent])
      await_state(context, sent.id, :delivered)

      assert API.request(context.name, :viewer, 1, sent.id) ==
               {:error, %Error{reason: :forbidden}}

      assert API.request(context.name, :owner, 2, sent.id) == {:error, %Error{reason: :not_found}}

      assert request(context, "msg_none") ==
               {:error, %Error{reason: :not_found}}

      of_nobody = delivery(%{webhook | id: "wh_gone"}, state: :failed, finished_at_ms: 1)
      # And one whose webhook has gone to another site.
      {:ok, other} =
        API.create_webhook(context.name, :owner, 2, %{url: webhook.url, events: webhook.events})

      of_another = delivery(%{other | site_id: 1}, state: :failed, finished_at_ms: 1)
      :ok = Outbox.accept(context.instance, [of_nobody, of_another])

      for delivery <- [of_nobody, of_another],
          do:
            assert(
              request(context, delivery.id) ==
                {:error, %Error{reason: :not_found}}
            )
    end
  end

  describe "a sample" do
    test "is what a test of that type sends", context do
      context = start!(context)
      goals = [TestHost.event_goal(5, "Other"), TestHost.event_goal(12, "Signup")]
      TestHost.put(context.host, {:goals, 1}, goals)
      webhook = webhook!(context, "/hook", %{goals: [12]})

      for type <- Event.types() do
        {:ok, %{body: body} = sample} = sample(context, webhook.id, type)
        assert sample.url == webhook.url
        {:ok, _attempt} = send_test(context, webhook.id, type)
        sent = List.last(HttpReceiver.requests(context.receiver, "/hook")).body
        assert timeless(body) == timeless(sent)
        assert {:ok, %{"type" => ^type}} = Native.decode(body)
      end

      assert HttpReceiver.count(context.receiver) == length(Event.types())

      assert {:ok, %{body: body} = sample} = sample(context, webhook.id, "goal.completed")

      # Signed as a test would be, under an id of its own.
      {:ok, [%{key: key}]} = reveal_secret(context, webhook.id)
      header = &(sample.headers |> List.keyfind(&1, 0) |> elem(1))
      id = header.("webhook-id")
      assert {:ok, header.("webhook-signature")} == Native.sign([key], id, sample.timestamp, body)
      assert body =~ "Signup" and not (body =~ "Other")

      assert {:error, %Error{reason: {:invalid, %{type: _}}}} =
               sample(context, webhook.id, "nonsense")

      assert sample(context, "wh_none", "webhook.test") ==
               {:error, %Error{reason: :not_found}}

      TestHost.put(context.host, {:site, 1}, nil)

      assert sample(context, webhook.id, "webhook.test") ==
               {:error, %Error{reason: :not_found}}
    end

    # Times of the two are some milliseconds apart.
    defp timeless(body), do: String.replace(body, ~r/\d{4}-\d\d-\d\dT[\d:.]+Z/, "T")
  end
end
