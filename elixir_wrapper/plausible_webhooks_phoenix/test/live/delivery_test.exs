defmodule PlausibleWeb.Live.WebhookSettings.DeliveryTest do
  use Plausible.Webhooks.Test.PageCase, async: true

  defp open(context, delivery), do: page!(context, "/deliveries/#{delivery.id}")

  test "what was sent, every attempt, newest first and open, and what it means", context do
    context = start_page!(context, retry_delays_ms: [10, 10])
    webhook = webhook!(context, "/hook", %{name: "CRM"})

    HttpReceiver.script(context.receiver, "/hook", [
      404,
      {503, [{"content-type", "text/html"}], "<b>busy</b>"},
      200
    ])

    view = open(context, sent!(context, webhook, 3))
    text = view |> render() |> plain()
    assert text =~ "msg_"
    assert link_of(view, "p a[href$='#{webhook.id}']") == "/#{webhook.id}"
    assert text =~ "Open CRM"
    assert text =~ ~r/Attempt 3 .*Attempt 2 .*Attempt 1 /
    assert has_element?(view, "#attempt-3[open]")
    refute has_element?(view, "#attempt-2[open]")
    assert text_of(view, "#attempt-1") =~ "this path does not"
    assert text_of(view, "#attempt-2") =~ "error status 503"
    assert view |> element("#attempt-2-result-answer") |> render() =~ "&lt;b&gt;busy&lt;/b&gt;"
    assert text_of(view, "#attempt-2") =~ "text/html"
    assert text_of(view, "#attempt-3") =~ "Delivered: your endpoint answered 200"
    assert text_of(view, "#delivery-body-text") =~ "goal.completed"
  end

  test "the request: URL, headers, curl, verification, signed anew on demand", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{headers: [{"X-Token", "abc"}]})
    delivery = sent!(context, webhook)
    view = open(context, delivery)
    refute render(view) =~ "abc"
    click(view, "#request-show")
    text = text_of(view, "#request")

    for shown <- [
          webhook.url,
          "X-Token",
          "abc",
          "webhook-signature",
          "v1,",
          "Plausible-Webhooks/"
        ],
        do: assert(text =~ shown)

    # No crash report has its values.
    refute inspect(:sys.get_state(view.pid), limit: :infinity) =~ ~s("abc")
    assert view |> element("#request-curl") |> render() =~ "curl -g -i -X POST"
    assert view |> element("#request-verify") |> render() =~ "timingSafeEqual"

    for {language, shown} <- [
          {"python", "hmac.compare_digest"},
          {"php", "hash_hmac"},
          {"ruby", "OpenSSL::HMAC"},
          {"go", "hmac.Equal"},
          {"elixir", ":crypto.mac"}
        ] do
      change(view, "#request-language", language: language)
      verify = view |> element("#request-verify") |> render()
      assert verify =~ shown
      assert verify =~ delivery.id
    end

    assert forge(view, "language", %{"language" => "cobol"}) =~ ":crypto.mac"
    first = view |> element("#request-curl") |> render()

    # The signature changes with the second.
    eventually(fn ->
      click(view, "#request button[phx-click=request]")
      view |> element("#request-curl") |> render() != first
    end)

    click(view, "#request button[phx-click=request_hide]")
    refute has_element?(view, "#request-curl")
  end

  test "sent again, and seen to arrive", context do
    context = start_page!(context, retry_delays_ms: [])
    webhook = webhook!(context, "/hook")
    HttpReceiver.script(context.receiver, "/hook", [500, 200])
    delivery = sent!(context, webhook)
    view = open(context, delivery)
    assert text_of(view, "#webhook-settings") =~ "Failed"
    click(view, "#delivery-redeliver")
    assert message(view) =~ "On its way again."
    shows!(view, "Delivered: your endpoint answered 200")
    assert HttpReceiver.ids(context.receiver, "/hook") == MapSet.new([delivery.id])
  end

  test "shows the headers that were sent; values of one's own on demand, which is recorded",
       context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{headers: [{"X-Token", "t0ken"}]})
    HttpReceiver.script(context.receiver, "/hook", [{200, [{"X-Served-By", "a\u202Eb"}], "ok"}])
    delivery = sent!(context, webhook)
    view = open(context, delivery)
    [request] = HttpReceiver.requests(context.receiver, "/hook")
    shown = text_of(view, "#attempt-1-result-request")

    for {name, value} <- request.headers,
        name != "x-token",
        do: assert(shown =~ "#{name}: #{value}")

    assert shown =~ "X-Token: …"
    assert text_of(view, "#attempt-1-result-headers") =~ "X-Served-By: a[U+202E]b"
    click(view, "#delivery-reveal")
    assert text_of(view, "#attempt-1-result-request") =~ "X-Token: t0ken"
    # No crash report has its values.
    refute inspect(:sys.get_state(view.pid), limit: :infinity) =~ ~s("t0ken")
    {:ok, [%{action: action} | _]} = API.audit_log(context.name, :owner, 1, webhook.id)
    assert action == "webhook_headers_revealed"

    {:ok, _} = API.rotate_secret(context.name, :owner, 1, webhook.id, 0)
    view = open(context, delivery)
    assert text_of(view, "#attempt-1-result") =~ "The webhook was changed since"
    refute text_of(view, "#attempt-1-result-request") =~ "webhook-signature"
  end

  test "not of a webhook that is paused, whose state is named", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    later_ms = System.system_time(:millisecond) + 3_600_000
    delivery = accept!(context, webhook, state: :parked, next_at_ms: later_ms)
    {:ok, _} = API.disable_webhook(context.name, :owner, 1, webhook.id)
    view = open(context, delivery)
    click(view, "#delivery-redeliver")
    assert message(view) =~ "Switch it on first."
    assert text_of(view, "#webhook-settings") =~ "Held"
    assert render(view) =~ "the webhook is paused; resume it to send or to cancel what is held"
    {:ok, 1} = API.cancel_held(context.name, :owner, 1, webhook.id)
    send(view.pid, :refresh)
    assert render(view) =~ "cancelled when the webhook was resumed"
  end

  test "one that waits counts down", context do
    context = start_page!(context, sweep_interval_ms: 60_000)
    next_at_ms = System.system_time(:millisecond) + 42_000

    delivery =
      accept!(context, webhook!(context, "/hook"), state: :parked, next_at_ms: next_at_ms)

    view = open(context, delivery)
    assert render(view) =~ "No attempt yet."
    assert view |> render() |> plain() =~ ~r/next attempt in 0:[234]\d/
    assert has_element?(view, "time[data-until='#{next_at_ms}']")
  end

  test "its webhook is deleted meanwhile, and so is it", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    view = open(context, accept!(context, webhook, state: :delivered))
    :ok = API.delete_webhook(context.name, :owner, 1, webhook.id)
    shows!(view, "This delivery no longer exists.")
    click(view, "#request-show")
    assert message(view) =~ "so there is no URL and no secret"
    click(view, "#delivery-redeliver")
    assert message(view) =~ "This delivery no longer exists."
  end

  test "a failed attempt ends in the phase that failed" do
    alias PlausibleWeb.Live.WebhookSettings.Chart

    for {fields, phases, failed} <- [
          {[error: :dns_timeout], ["Name lookup"], "Name lookup"},
          {[error: :connection_refused, dns_us: 5], ["Name lookup", "Connection"], "Connection"},
          {[error: :tls_error, dns_us: 5, connect_us: 9], ["Name lookup", "Connection", "TLS"],
           "TLS handshake"},
          {[error: :timeout, dns_us: 5, connect_us: 9, tls_us: 20], ["TLS", "Waiting"],
           "Waiting for the answer"},
          {[error: :timeout], ["Waiting for the answer"], "Waiting for the answer"},
          {[error: :protocol_error, first_byte_us: 9], ["Reading"], "Reading the answer"},
          {[error: :http_status, status: 500, first_byte_us: 9], ["Reading"], nil},
          {[error: nil, status: 200, first_byte_us: 9], ["Reading"], nil}
        ] do
      attempt = struct!(%Plausible.Webhooks.Attempt{total_us: 1_000_000}, fields)
      html = render_component(&Chart.timing/1, attempt: attempt)
      text = plain(html)
      for phase <- phases, do: assert(text =~ phase)

      if failed,
        do: assert(text =~ ~r/#{failed} [^A-Z]+ failed here/),
        else: refute(text =~ "failed here")
    end
  end
end
