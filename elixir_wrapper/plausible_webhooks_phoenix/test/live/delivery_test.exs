defmodule PlausibleWeb.Live.WebhookSettings.DeliveryTest do
  use Plausible.Webhooks.Test.PageCase, async: true

  defp accept!(context, webhook, attributes) do
    delivery = delivery(webhook, attributes)
    :ok = Store.accept(context.instance, [delivery])
    delivery
  end

  defp push!(context, webhook, attempts) do
    delivery = delivery(webhook)
    Outbox.push(context.instance, [delivery])

    eventually(fn ->
      match?({:ok, %{attempts: ^attempts}}, API.delivery(context.name, :owner, 1, delivery.id))
    end)

    delivery
  end

  defp open(context, delivery, given \\ %{}) do
    view = page!(context, given)
    click(view, "button[phx-click='page.log']", "Deliveries")
    click(view, "##{delivery.id} button")
    view
  end

  test "what was sent, every attempt, newest first, and what it means", context do
    context = start_page!(context, retry_delays_ms: [10, 10])
    webhook = webhook!(context, "/hook", %{name: "CRM"})

    HttpReceiver.script(context.receiver, "/hook", [
      404,
      {503, [{"content-type", "text/html"}], "<b>busy</b>"},
      200
    ])

    delivery = push!(context, webhook, 3)
    view = open(context, delivery)
    text = view |> render() |> plain()
    assert text =~ delivery.id
    assert text =~ "CRM"
    assert text =~ "Signup"
    assert text =~ ~r/Attempt 3 .*Attempt 2 .*Attempt 1 /
    assert text_of(view, "#attempt-1") =~ "this path does not"
    assert text_of(view, "#attempt-2") =~ "error status 503"
    assert view |> element("#attempt-2 pre") |> render() =~ "&lt;b&gt;busy&lt;/b&gt;"
    assert text_of(view, "#attempt-2") =~ "text/html"
    assert text_of(view, "#attempt-3") =~ "Delivered: your endpoint answered 200"

    assert code_of(view, "#delivery-body-text") ==
             ~s({ "type": "goal.completed" })
  end

  test "the request: URL, headers, curl, verification, signed anew on demand", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{headers: [{"X-Token", "abc"}]})
    delivery = push!(context, webhook, 1)
    view = open(context, delivery)
    refute render(view) =~ "X-Token"
    click(view, "#delivery-request-show")
    text = text_of(view, "#delivery-request")

    for shown <- [
          webhook.url,
          "X-Token",
          "abc",
          "webhook-signature",
          "v1,",
          "Plausible-Webhooks/"
        ],
        do: assert(text =~ shown)

    refute text =~ "whsec_abc"
    assert view |> element("#delivery-curl") |> render() =~ "curl -g -i -X POST"
    assert view |> element("#delivery-verify") |> render() =~ "timingSafeEqual"

    for {language, shown} <- [
          {"python", "hmac.compare_digest"},
          {"php", "hash_hmac"},
          {"ruby", "OpenSSL::HMAC"},
          {"go", "hmac.Equal"},
          {"elixir", ":crypto.mac"}
        ] do
      view |> form("#delivery-language", language: language) |> render_change()
      verify = view |> element("#delivery-verify") |> render()
      assert verify =~ shown
      assert verify =~ delivery.id
    end

    assert forge(view, "delivery.language", %{"language" => "cobol"}) =~ "That is not possible."
    first = view |> element("#delivery-curl") |> render()

    # The signature changes with the second.
    eventually(fn ->
      click(view, "#delivery-request button", "Sign again with the current time")
      view |> element("#delivery-curl") |> render() != first
    end)

    click(view, "#delivery-request button", "Hide request")
    refute has_element?(view, "#delivery-curl")
  end

  test "sent again, and seen to arrive", context do
    context = start_page!(context, retry_delays_ms: [])
    webhook = webhook!(context, "/hook")
    HttpReceiver.script(context.receiver, "/hook", [500, 200])
    delivery = push!(context, webhook, 1)
    view = open(context, delivery)
    assert text_of(view, "#webhook-settings") =~ "Failed"
    assert click(view, "#delivery-redeliver") =~ "On its way again."
    shows!(view, "Delivered: your endpoint answered 200")
    assert HttpReceiver.ids(context.receiver, "/hook") == MapSet.new([delivery.id])
  end

  test "not of a webhook that is paused", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    delivery = accept!(context, webhook, state: :failed, reason: "x")
    {:ok, _} = API.disable_webhook(context.name, :owner, 1, webhook.id)
    view = open(context, delivery)
    assert click(view, "#delivery-redeliver") =~ "Switch it on first."
  end

  test "one that waits counts down", context do
    context = start_page!(context, sweep_interval_ms: 60_000)
    webhook = webhook!(context, "/hook")

    delivery =
      accept!(context, webhook,
        state: :parked,
        next_at_ms: System.system_time(:millisecond) + 42_000
      )

    view = open(context, delivery)
    assert render(view) =~ "No attempt yet."
    [seen] = Regex.run(~r/next attempt in (0:\d\d)/, render(view), capture: :all_but_first)
    eventually(fn -> not (render(view) =~ seen) end)
  end

  test "its webhook is deleted meanwhile, and so is it", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    delivery = accept!(context, webhook, state: :delivered)
    view = open(context, delivery)
    :ok = API.delete_webhook(context.name, :owner, 1, webhook.id)
    shows!(view, "This delivery no longer exists.")
    assert click(view, "#delivery-request-show") =~ "so there is no URL and no secret"
    click(view, "#delivery-redeliver")
    assert text_of(view, "#webhook-message") == "This delivery no longer exists."
  end

  test "the way back leads where one came from", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    delivery = push!(context, webhook, 1)
    view = open(context, delivery)
    click(view, "button[phx-click='page.back']")
    assert has_element?(view, "#log-title")
    click(view, "button[phx-click='page.list']", "Webhooks")
    shows!(view, "100 % of 1")
    click(view, "button[phx-click='page.delivery']")
    click(view, "button[phx-click='page.back']")
    assert has_element?(view, "#webhooks-title")
    click(view, "#webhook-#{webhook.id} h3 button")
    shows!(view, "100 % of 1")
    click(view, "button[phx-click='page.delivery']")
    click(view, "button[phx-click='page.back']")
    assert has_element?(view, "#webhook-title")
    click(view, "button[phx-click='page.delivery']")
    click(view, "button[phx-click='page.webhook']", "Open Webhook for 127.0.0.1")
    assert has_element?(view, "#webhook-title")
  end
end
