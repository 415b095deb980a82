defmodule PlausibleWeb.Live.WebhookSettings.WebhookTest do
  use Plausible.Webhooks.Test.PageCase, async: true

  defp open(context, webhook), do: page!(context, "/#{webhook.id}")

  defp stored(context, webhook) do
    {:ok, webhook} = API.get_webhook(context.name, :owner, 1, webhook.id)
    webhook
  end

  defp send_test(view, type \\ "webhook.test"),
    do: submit(view, "#webhook-test-form", type: type)

  describe "pause, resume" do
    test "at once, and says so", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      view = open(context, webhook)
      html = click(view, "#webhook-pause")
      assert message(view) =~ "Paused."
      refute stored(context, webhook).enabled
      assert html =~ "receives no new events"
      refute has_element?(view, "#webhook-pause")
      click(view, "#webhook-resume")
      assert message(view) =~ "Active again."
      assert stored(context, webhook).enabled
    end

    for {choice, states} <- [
          {"send", %{delivered: 3, held: 0, cancelled: 0}},
          {"cancel", %{delivered: 0, held: 0, cancelled: 3}}
        ] do
      test "holds what waits, and resuming asks: #{choice}", context do
        context = start_page!(context)
        webhook = webhook!(context, "/hook")
        later_ms = System.system_time(:millisecond) + 3_600_000
        for _ <- 1..3, do: accept!(context, webhook, state: :parked, next_at_ms: later_ms)
        view = open(context, webhook)
        settled(view)
        question = view |> element("#webhook-delete") |> render()
        assert question =~ "Delete 127.0.0.1 and its log? This cancels 3 deliveries that wait."

        click(view, "#webhook-pause")
        assert {:ok, %{held: 3}} = API.queue(context.name)
        refute has_element?(view, "#webhook-held")
        click(view, "#webhook-resume")
        assert text_of(view, "#webhook-held") =~ "3 deliveries held. What shall become of them?"
        refute stored(context, webhook).enabled

        click(view, "#webhook-resume-#{unquote(choice)}")
        assert message(view) =~ "Active again"
        refute has_element?(view, "#webhook-held")
        assert stored(context, webhook).enabled

        eventually(fn ->
          {:ok, counts} = API.queue(context.name)
          Map.take(counts, [:delivered, :held, :cancelled]) == unquote(Macro.escape(states))
        end)
      end
    end

    test "one that we switched off can be switched on", context do
      context = start_page!(context, retry_delays_ms: [])
      webhook = webhook!(context, "/hook")
      HttpReceiver.script(context.receiver, "/hook", [410])
      view = open(context, webhook)
      send_test(view)
      shows!(view, "because your endpoint answered 410")
      assert text_of(view, "#webhook-resume") == "Switch on"
      click(view, "#webhook-resume")
      assert stored(context, webhook).disabled_reason == nil

      for _ <- 1..3, do: Plausible.Webhooks.Deliver.Health.slow(context.instance, webhook.id)
      shows!(view, "took too much processor time")
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
      html = send_test(view)
      assert html =~ "Delivered: your endpoint answered 202 after"
      assert text_of(view, "#webhook-test-result") =~ "Waiting for the answer"
      assert text_of(view, "#webhook-test-result") =~ "Connection"
      assert text_of(view, "#webhook-test-result") =~ "Total"
      assert text_of(view, "#webhook-test-attempt-answer") == "thank you"
      assert text_of(view, "#webhook-test-result") =~ "127.0.0.1"
      # Said once: in place.
      assert message(view) == ""
      assert link_of(view, "#webhook-test-result a") =~ ~r"\A/deliveries/msg_"
    end

    test "any type, with this site's own sample, which can be looked at before", context do
      context = start_page!(context, retry_delays_ms: [15_000, 600_000])
      webhook = webhook!(context, "/hook", %{headers: [{"X-Token", "abc"}]})
      view = open(context, webhook)
      assert text_of(view, "#request") =~ "2 retries, after 15 s, 10 min"
      assert text_of(view, "#request") =~ "kept for 30 d"
      click(view, "#request-show")
      assert view |> element("#request-body") |> render() =~ "webhook.test"
      assert view |> element("#request-curl") |> render() =~ "X-Token: abc"
      assert view |> element("#request-verify") |> render() =~ "timingSafeEqual"
      change(view, "#webhook-test-form", type: "goal.completed")
      click(view, "#request-show")
      sample = view |> element("#request-body") |> render()
      assert sample =~ "Signup"
      assert sample =~ "site1.example"
      click(view, "button[phx-click='request_hide']")
      refute has_element?(view, "#request-body")

      for type <- Plausible.Webhooks.Event.types(), do: send_test(view, type)
      types = for request <- HttpReceiver.requests(context.receiver, "/hook"), do: type(request)
      assert types == Plausible.Webhooks.Event.types()
      forge(view, "test_type", %{"type" => "no.such"})

      assert has_element?(
               view,
               "#webhook-test-type option[value='#{List.last(types)}'][selected]"
             )
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
        html = view |> send_test() |> plain()

        for text <- ["What it means", "What to do" | shown],
            do: assert(html =~ text, "#{inspect(answer)}: #{text}")

        GenServer.stop(view.pid)
      end
    end

    test "nobody listens, no answer in time", context do
      context = start_page!(context, timeout_ms: 600, connect_timeout_ms: 300)
      webhook = webhook!(context, "/slow")
      HttpReceiver.script(context.receiver, "/slow", [:hang])
      view = open(context, webhook)
      view |> form("#webhook-test-form") |> render_submit()
      assert render(view) =~ "Sending"
      # A disabled button would lose the focus.
      assert has_element?(view, "#webhook-test-send[aria-disabled]:not([disabled])")
      assert settled(view) =~ "no answer in time"
      HttpReceiver.stop_listening(context.receiver)
      assert send_test(view) =~ "Nothing listens at this address and port."
    end

    test "an address that may not be dialled, as it is judged when it is sent", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      :ok = stop_supervised(context.name)
      context = start_page!(context, policy: %{https_only: false})
      view = open(context, webhook)
      html = send_test(view)
      assert html =~ "Not sent. The URL must not name a private or reserved address"
      assert render(page!(context, "/deliveries?webhook=#{webhook.id}")) =~ "not sent"
      assert HttpReceiver.count(context.receiver) == 0
    end

    test "too many: the wait is said in one place, and counts down", context do
      context = start_page!(context, tests_per_minute: 1)
      webhook = webhook!(context, "/hook")
      view = open(context, webhook)
      send_test(view)
      text = view |> send_test() |> plain()
      assert [_one, _more] = String.split(text, ~r/send the next one in (0:5\d|1:00)/)
      assert has_element?(view, "#webhook-test-result time[data-until]")
      assert has_element?(view, "#webhook-test-send[disabled]")
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
      eventually(fn -> text_of(view, "#webhooks-title + div") == "Active" end)
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
      click(view, "#webhook-reveal")
      assert view |> element("#webhook-secret-1") |> render() =~ key
      assert_received {:host, :audit, :owner, :webhook_secret_revealed, _}
      click(view, "button[phx-click='hide']")
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
      html = submit(view, "#webhook-rotate-form", overlap: "3600")
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
      assert submit(view, "#webhook-rotate-form", overlap: "0") =~ "the old one no longer signs"
      assert {:ok, [%{key: new}]} = API.reveal_secret(context.name, :owner, 1, webhook.id)
      assert new != old
    end

    test "not with a time of one's own, not too often", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      view = open(context, webhook)

      for overlap <- ["1", "-3600", "x", "", nil, %{}, "604801"],
          do: assert(forge(view, "rotate", %{"overlap" => overlap}) =~ "Choose one of the times.")

      for _ <- 1..9,
          do: {:ok, _} = API.rotate_secret(context.name, :owner, 1, webhook.id, 3_600_000)

      assert submit(view, "#webhook-rotate-form", overlap: "86400") =~
               "Too many secrets sign at the same time."
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
      assert submit(view, "#webhook-recover-form") =~ "4 deliveries to send again."
      click(view, "#webhook-recover-confirm")
      shows!(view, "4 deliveries sent again.")
      HttpReceiver.await(context.receiver, "/hook", 4)

      long_ago =
        (now_ms - 5 * 86_400_000) |> DateTime.from_unix!(:millisecond) |> DateTime.to_iso8601()

      assert submit(view, "#webhook-recover-form", since: String.slice(long_ago, 0, 16)) =~
               "1 delivery to send again."
    end

    test "nothing, and no date", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook")
      view = open(context, webhook)
      assert submit(view, "#webhook-recover-form") =~ "Nothing has failed since then."
      refute has_element?(view, "#webhook-recover-confirm")

      for since <- ["", "yesterday", nil, 7],
          do:
            assert(
              forge(view, "recover_count", %{"since" => since}) =~
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
      assert submit(view, "#webhook-recover-form") =~ "More than 2 deliveries to send again"
      click(view, "#webhook-recover-confirm")
      shows!(view, "there are more")
    end
  end

  test "deleted elsewhere while it is looked at: the list is shown", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    view = open(context, webhook)
    :ok = API.delete_webhook(context.name, :owner, 1, webhook.id)
    assert left!(view) == ""
  end

  test "fails from five minutes on, and says since when", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    ago = fn min -> System.system_time(:millisecond) - min * 60_000 end

    for {min, shown} <- [{2, "Active"}, {6, "Failing"}] do
      :ok = Store.put_health(context.instance, webhook.id, %{failing_since_ms: ago.(min)})
      view = open(context, webhook)
      assert text_of(view, "#webhooks-title + div") == shown
      assert render(view) =~ "No attempt has arrived since" == (shown == "Failing")
    end
  end
end
