defmodule PlausibleWeb.Live.WebhookSettings.WebhookTest do
  use Plausible.Webhooks.Test.PageCase, async: true

  defp open(context, webhook) do
    view = page!(context)
    click(view, "#webhook-#{webhook.id} h3 button")
    view
  end

  defp stored(context, webhook) do
    {:ok, webhook} = API.get_webhook(context.name, :owner, 1, webhook.id)
    webhook
  end

  defp accept!(context, webhook, attributes) do
    delivery = delivery(webhook, attributes)
    :ok = Store.accept(context.instance, [delivery])
    delivery
  end

  defp send_test(view, type \\ "webhook.test") do
    view |> form("#webhook-test-form", type: type) |> render_submit()
    view
  end

  describe "pause, resume" do
    test "at once, and says so", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      view = open(context, webhook)
      html = click(view, "#webhook-pause")
      assert html =~ "Paused."
      refute stored(context, webhook).enabled
      assert html =~ "receives no new events"
      refute has_element?(view, "#webhook-pause")
      html = click(view, "#webhook-resume")
      assert html =~ "Active again."
      assert stored(context, webhook).enabled
    end

    test "says how many are cancelled by it", context do
      context = start_page!(context, retry_delays_ms: [3_600_000])
      webhook = webhook!(context, "/hook")
      HttpReceiver.script(context.receiver, "/hook", [500])
      :ok = Outbox.accept(context.name, for(_ <- 1..3, do: delivery(webhook)))
      HttpReceiver.await(context.receiver, "/hook", 3)
      view = open(context, webhook)
      html = click(view, "#webhook-pause")
      assert html =~ "Paused. Cancelled 3 deliveries that waited"
    end

    test "one that we switched off can be switched on", context do
      context = start_page!(context, retry_delays_ms: [])
      webhook = webhook!(context, "/hook")
      HttpReceiver.script(context.receiver, "/hook", [410])
      view = open(context, webhook)
      send_test(view)
      shows!(view, "because your endpoint answered 410")
      click(view, "#webhook-resume", "Switch on")
      assert stored(context, webhook).disabled_reason == nil
    end
  end

  describe "delete" do
    test "asks, says how many it cancels, and does it", context do
      context = start_page!(context, sweep_interval_ms: 60_000)
      webhook = webhook!(context, "/hook", %{name: "CRM"})
      later_ms = System.system_time(:millisecond) + 3_600_000
      for _ <- 1..3, do: accept!(context, webhook, state: :parked, next_at_ms: later_ms)
      view = open(context, webhook)
      html = click(view, "#webhook-delete")
      assert html =~ "Delete CRM?"
      assert html =~ "3 deliveries waiting now will be cancelled."
      click(view, "#webhook-delete-panel button", "Cancel")
      refute has_element?(view, "#webhook-delete-panel")
      assert stored(context, webhook)
      click(view, "#webhook-delete")
      html = click(view, "#webhook-delete-confirm")
      assert html =~ "Webhook deleted."
      assert html =~ "No webhooks yet"

      assert {:error, %API.Error{reason: :not_found}} =
               API.get_webhook(context.name, :owner, 1, webhook.id)
    end

    test "not without being asked", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      view = open(context, webhook)
      assert forge(view, "webhook.delete_confirm", %{}) =~ "That is not possible."
      assert stored(context, webhook)
    end

    test "nothing waits", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      view = open(context, webhook)
      assert click(view, "#webhook-delete") =~ "Nothing is waiting to be sent."
    end
  end

  describe "the test" do
    test "one that arrives: status, timings, answer, and where it is in the log", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")

      HttpReceiver.script(context.receiver, "/hook", [
        {202, [{"content-type", "text/plain"}], "thank you"}
      ])

      view = open(context, webhook)
      send_test(view)
      html = settled(view)
      assert html =~ "Delivered: your endpoint answered 202 after"
      assert text_of(view, "#webhook-test-result") =~ "Waiting for the answer"
      assert text_of(view, "#webhook-test-result") =~ "Connection"
      assert text_of(view, "#webhook-test-result") =~ "Total"
      assert text_of(view, "#webhook-test-result pre") == "thank you"
      assert text_of(view, "#webhook-test-result") =~ "127.0.0.1"
      assert text_of(view, "#webhook-message") =~ "Delivered"
      click(view, "#webhook-test-result button", "Open in the log")
      assert text_of(view, "#delivery-title") == "Test"
    end

    test "any type, with this site's own sample, which can be looked at before", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      view = open(context, webhook)
      click(view, "button[phx-click='webhook.sample']")
      assert view |> element("#webhook-test-sample") |> render() =~ "webhook.test"
      view |> form("#webhook-test-form", type: "goal.completed") |> render_change()
      settled(view)
      sample = view |> element("#webhook-test-sample") |> render()
      assert sample =~ "Signup"
      assert sample =~ "site1.example"
      click(view, "button[phx-click='webhook.sample_hide']")
      refute has_element?(view, "#webhook-test-sample")

      for type <- Plausible.Webhooks.Event.types() do
        send_test(view, type)
        settled(view)
      end

      types = for request <- HttpReceiver.requests(context.receiver, "/hook"), do: type(request)
      assert types == Plausible.Webhooks.Event.types()
      assert forge(view, "webhook.test_type", %{"type" => "no.such"}) =~ "That is not possible."
    end

    defp type(request), do: Jason.decode!(request.body)["type"]

    test "what failed is explained, and what to do", context do
      context = start_page!(context)

      for {answer, shown} <- [
            {404,
             ["Not delivered: error status 404.", "The server exists, but this path does not"]},
            {401, ["error status 401", "this webhook's secret"]},
            {{302, [{"location", "/x"}], ""},
             ["redirect, status 302", "Redirects are never followed"]},
            {503, ["error status 503", "not available at the moment"]},
            {418, ["error status 418", "refuses the request"]},
            {:reset, ["connection closed", "before there was an answer"]},
            {:close, ["connection closed"]}
          ] do
        path = "/#{System.unique_integer([:positive])}"
        webhook = webhook!(context, path)
        HttpReceiver.script(context.receiver, path, [answer])
        view = open(context, webhook)
        send_test(view)
        html = view |> settled() |> plain()

        for text <- ["What it means", "What to do" | shown],
            do: assert(html =~ text, "#{inspect(answer)}: #{text}")

        stop(view)
      end
    end

    defp stop(view), do: GenServer.stop(view.pid)

    test "nobody listens, no answer in time", context do
      context = start_page!(context, timeout_ms: 600, connect_timeout_ms: 300)
      webhook = webhook!(context, "/slow")
      HttpReceiver.script(context.receiver, "/slow", [:hang])
      view = open(context, webhook)
      send_test(view)
      assert render(view) =~ "Sending"
      assert has_element?(view, "#webhook-test-send[disabled]")
      assert settled(view) =~ "no answer in time"
      HttpReceiver.stop_listening(context.receiver)

      send_test(view)
      assert settled(view) =~ "Nothing listens at this address and port."
    end

    test "an address that may not be dialled, as it is judged when it is sent", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      :ok = stop_supervised(context.name)
      context = start_page!(context, policy: %{https_only: false})
      view = open(context, webhook)
      send_test(view)
      html = settled(view)
      assert html =~ "Not sent. The URL must not name an address inside a network"
      click(view, "button", "See its deliveries")
      assert render(view) =~ "not sent"
      assert HttpReceiver.count(context.receiver) == 0
    end

    test "too many: the wait is said, counts down, and then it goes on", context do
      context = start_page!(context, tests_per_minute: 1)
      webhook = webhook!(context, "/hook")
      view = open(context, webhook)
      send_test(view)
      settled(view)
      send_test(view)
      assert settled(view) =~ ~r/send the next one in (0:5\d|1:00)\./
      assert has_element?(view, "#webhook-test-send[disabled]")

      [seen] =
        Regex.run(~r/next one in (\d:\d\d)/, text_of(view, "#webhook-test"),
          capture: :all_but_first
        )

      eventually(fn -> not (text_of(view, "#webhook-test") =~ "next one in #{seen}") end)
      assert HttpReceiver.count(context.receiver) == 1
    end

    test "a success switches on what we had switched off", context do
      context = start_page!(context, retry_delays_ms: [])
      webhook = webhook!(context, "/hook")
      HttpReceiver.script(context.receiver, "/hook", [410, 200])
      view = open(context, webhook)
      send_test(view)
      shows!(view, "because your endpoint answered 410")
      send_test(view)
      shows!(view, "The webhook is switched on again.")
      assert stored(context, webhook).disabled_reason == nil
    end
  end

  describe "the secret" do
    test "is hidden until it is asked for, which is on record", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      {:ok, [%{key: key}]} = API.reveal_secret(context.name, :owner, 1, webhook.id)
      assert_receive {:host, :audit, :owner, :webhook_secret_revealed, _}
      view = open(context, webhook)
      refute render(view) =~ "whsec_"
      refute_received {:host, :audit, :owner, :webhook_secret_revealed, _}
      click(view, "#webhook-reveal")
      assert view |> element("#webhook-secret-1") |> render() =~ key
      assert_received {:host, :audit, :owner, :webhook_secret_revealed, _}
      click(view, "button[phx-click='webhook.hide']")
      refute render(view) =~ "whsec_"
      # No crash report has it either.
      click(view, "#webhook-reveal")

      refute inspect(:sys.get_state(view.pid), limit: :infinity, printable_limit: :infinity) =~
               key
    end

    test "replaced with an overlap, whose rest is shown; the old one signs on", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      {:ok, [%{key: old}]} = API.reveal_secret(context.name, :owner, 1, webhook.id)
      view = open(context, webhook)
      click(view, "#webhook-reveal")
      click(view, "#webhook-rotate")
      view |> form("#webhook-rotate-form", overlap: "3600") |> render_submit()
      html = settled(view)
      assert html =~ "Give the new one to your receiver."
      assert html =~ ~r/Two secrets sign now; the older one until .* \((59 min|1 h) left\)/
      refute html =~ old
      assert_received {:host, :audit, :owner, :webhook_secret_rotated, _}
      click(view, "#webhook-reveal")
      assert view |> element("#webhook-secret-2") |> render() =~ old
      assert text_of(view, "label[for=webhook-secret-2]") =~ ~r/signs until .* left/
      {:ok, [%{key: new}, _]} = API.reveal_secret(context.name, :owner, 1, webhook.id)

      for {key, path} <- [{old, "/old"}, {new, "/new"}] do
        {:ok, _} =
          API.update_webhook(context.name, :owner, 1, webhook.id, %{
            url: HttpReceiver.url(context.receiver, path)
          })

        HttpReceiver.secrets(context.receiver, path, [key])
        send_test(view)
        settled(view)
        assert [%{verified: true}] = HttpReceiver.requests(context.receiver, path)
      end
    end

    test "one that somebody else replaces is shown no longer", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      view = open(context, webhook)
      click(view, "#webhook-reveal")
      {:ok, _} = API.update_webhook(context.name, :owner, 1, webhook.id, %{name: "Renamed"})
      shows!(view, "Renamed")
      assert render(view) =~ "whsec_"
      {:ok, _} = API.rotate_secret(context.name, :owner, 1, webhook.id, 3_600_000)
      eventually(fn -> not (render(view) =~ "whsec_") end)
    end

    test "in an emergency without", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      {:ok, [%{key: old}]} = API.reveal_secret(context.name, :owner, 1, webhook.id)
      view = open(context, webhook)
      click(view, "#webhook-rotate")
      view |> form("#webhook-rotate-form", overlap: "0") |> render_submit()
      assert settled(view) =~ "the old one no longer signs"
      assert {:ok, [%{key: new}]} = API.reveal_secret(context.name, :owner, 1, webhook.id)
      assert new != old
    end

    test "not without the panel, not with a time of one's own, not too often", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      view = open(context, webhook)
      assert forge(view, "webhook.rotate_confirm", %{"overlap" => "0"}) =~ "That is not possible."
      click(view, "#webhook-rotate")

      for overlap <- ["1", "-3600", "x", "", nil, %{}, "604801"],
          do:
            assert(
              forge(view, "webhook.rotate_confirm", %{"overlap" => overlap}) =~
                "Choose one of the times."
            )

      click(view, "button", "Cancel")
      refute has_element?(view, "#webhook-rotate-form")

      for _ <- 1..9,
          do: {:ok, _} = API.rotate_secret(context.name, :owner, 1, webhook.id, 3_600_000)

      click(view, "#webhook-rotate")
      view |> form("#webhook-rotate-form", overlap: "86400") |> render_submit()
      assert settled(view) =~ "Too many secrets sign at the same time."
    end
  end

  describe "sending again what failed" do
    test "counts it, then sends it", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      now_ms = System.system_time(:millisecond)
      old_ms = now_ms - 3 * 86_400_000
      for _ <- 1..4, do: accept!(context, webhook, state: :failed, reason: "x")
      accept!(context, webhook, state: :failed, reason: "x", created_at_ms: old_ms)
      view = open(context, webhook)
      view |> form("#webhook-recover-form") |> render_submit()
      assert settled(view) =~ "4 deliveries to send again."
      click(view, "#webhook-recover-confirm")
      shows!(view, "4 deliveries sent again.")
      HttpReceiver.await(context.receiver, "/hook", 4)

      long_ago =
        (now_ms - 5 * 86_400_000) |> DateTime.from_unix!(:millisecond) |> DateTime.to_iso8601()

      view
      |> form("#webhook-recover-form", since: String.slice(long_ago, 0, 16))
      |> render_submit()

      assert settled(view) =~ "1 delivery to send again."
    end

    test "nothing, no date, and not before it is counted", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      view = open(context, webhook)
      view |> form("#webhook-recover-form") |> render_submit()
      assert settled(view) =~ "Nothing has failed since then."
      refute has_element?(view, "#webhook-recover-confirm")
      assert forge(view, "webhook.recover", %{}) =~ "That is not possible."

      for since <- ["", "yesterday", nil, 7],
          do:
            assert(
              forge(view, "webhook.recover_count", %{"since" => since}) =~
                "Enter a date and a time."
            )
    end

    test "of one that is paused: it is to be switched on first", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      {:ok, _} = API.disable_webhook(context.name, :owner, 1, webhook.id)
      view = open(context, webhook)
      assert text_of(view, "#webhook-recover") =~ "Switch it on first."
      refute has_element?(view, "#webhook-recover-form")
    end

    test "more than one call takes is said", context do
      context = start_page!(context, recover_max: 2)
      webhook = webhook!(context, "/hook")
      for _ <- 1..3, do: accept!(context, webhook, state: :failed, reason: "x")
      view = open(context, webhook)
      view |> form("#webhook-recover-form") |> render_submit()
      assert settled(view) =~ "More than 2 deliveries to send again"
      click(view, "#webhook-recover-confirm")
      shows!(view, "there are more")
    end
  end

  test "deleted elsewhere while it is looked at", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    view = open(context, webhook)
    :ok = API.delete_webhook(context.name, :owner, 1, webhook.id)
    shows!(view, "This webhook no longer exists.")
    html = forge(view, "webhook.pause", %{})
    assert html =~ "This webhook no longer exists." and html =~ "No webhooks yet"
  end

  test "has copy buttons where a script copies, and brings the script on request", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")

    for {given, button?, script?} <- [
          {%{}, false, false},
          {%{"copy" => true}, true, false},
          {%{"copy" => "page", "nonce" => "n0nce"}, true, true}
        ] do
      view = page!(context, given)
      click(view, "#webhook-#{webhook.id} h3 button")
      click(view, "#webhook-reveal")
      assert has_element?(view, "#webhook-secret-1[readonly]")
      assert has_element?(view, "#webhook-secret button", "Copy") == button?
      assert has_element?(view, "#webhook-secret-1-copied[role=status]") == button?
      assert has_element?(view, "script[nonce=n0nce]") == script?
      assert String.contains?(render(view), "addEventListener") == script?
    end
  end
end
