defmodule PlausibleWeb.Live.WebhookSettings.ListTest do
  use Plausible.Webhooks.Test.PageCase, async: true

  defp rows(view),
    do:
      Regex.scan(~r/<tr id="webhook-(wh_[^"]+)"/, render(view), capture: :all_but_first)
      |> List.flatten()

  test "says what webhooks are for, as long as there are none", context do
    view = context |> start_page!() |> page!()
    assert render(view) =~ "Create your first webhook"
    assert link_of(view, "#webhooks-add") == "/new"
  end

  test "each with its name, host and path, types and state, and a link", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook?token=secret", %{name: "CRM"})
    other = webhook!(context, "/b", %{events: ["traffic.spike"], spike_threshold: 5})
    {:ok, _} = API.disable_webhook(context.name, :owner, 1, other.id)
    view = page!(context)

    for text <- [
          "CRM",
          "127.0.0.1/hook",
          "Goal completed",
          "Active",
          "No events in 24 h",
          "None yet"
        ],
        do: assert(text_of(view, "#webhook-#{webhook.id}") =~ text)

    for text <- ["127.0.0.1", "Traffic spike", "Paused"],
        do: assert(text_of(view, "#webhook-#{other.id}") =~ text)

    refute render(view) =~ "token=secret"
    assert link_of(view, "#webhook-#{webhook.id} td:first-child a") == "/#{webhook.id}"
    assert link_of(view, "#webhook-#{webhook.id} td:last-child a") == "/#{webhook.id}/edit"
    assert render(view) =~ "2 of 20 webhooks"
  end

  test "the last 24 hours: success rate, chart, last delivery, what waits", context do
    context = start_page!(context, retry_delays_ms: [3_600_000])
    webhook = webhook!(context, "/hook")
    HttpReceiver.script(context.receiver, "/hook", [200, 200, 200, 500])
    deliveries = for _ <- 1..4, do: sent!(context, webhook)
    view = page!(context)
    row = "#webhook-#{webhook.id}"
    shows!(view, "1 waiting")
    assert text_of(view, row) =~ "100 % of 3"
    assert text_of(view, row) =~ "Waiting"
    html = view |> element("#{row} svg[role=img]") |> render()
    assert html =~ "Last 24 hours: 3 delivered, 0 failed, 0 cancelled; at most 3 in an hour"
    assert link_of(view, "#{row} td:nth-child(4) a") == "/deliveries/#{List.last(deliveries).id}"
  end

  test "tests are no traffic: they do not count, and are not sent again", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    HttpReceiver.script(context.receiver, "/hook", [500, 200])

    {:ok, %{error: :http_status}} =
      API.send_test(context.name, :owner, 1, webhook.id, "webhook.test")

    sent!(context, webhook)
    view = page!(context)
    eventually(fn -> text_of(view, "#webhook-#{webhook.id}") =~ "100 % of 1" end)
    assert {:ok, %{count: 0}} = API.recoverable(context.name, :owner, 1, webhook.id, 0)
  end

  test "what needs its owner comes first; other orders have an address", context do
    context = start_page!(context, retry_delays_ms: [])
    [a, b, c] = for name <- ~w(a b c), do: webhook!(context, "/#{name}", %{name: name})
    {:ok, _} = API.disable_webhook(context.name, :owner, 1, a.id)
    HttpReceiver.script(context.receiver, "/c", [410])
    sent!(context, b)
    sent!(context, c)
    view = page!(context)
    shows!(view, "Switched off")
    assert rows(view) == [c.id, b.id, a.id]
    assert rows(page!(context, "?sort=name")) == [a.id, b.id, c.id]
    assert rows(page!(context, "?sort=last")) == [c.id, b.id, a.id]
    assert rows(page!(context, "?sort=rate")) == [c.id, b.id, a.id]
    assert rows(page!(context, "?sort=nonsense")) == [c.id, b.id, a.id]
  end

  test "what others do shows by itself: webhooks, deliveries", context do
    context = start_page!(context)
    view = page!(context)
    webhook = webhook!(context, "/hook", %{name: "Added elsewhere"})
    shows!(view, "Added elsewhere")
    sent!(context, webhook)
    eventually(fn -> text_of(view, "#webhook-#{webhook.id}") =~ "100 % of 1" end)
    {:ok, _} = API.update_webhook(context.name, :owner, 1, webhook.id, %{name: "Renamed"})
    shows!(view, "Renamed")
    :ok = API.delete_webhook(context.name, :owner, 1, webhook.id)
    shows!(view, "Create your first webhook")
  end

  test "an activity that cannot be read leaves the rest", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{name: "CRM"})
    table = ~s("#{context.prefix}".webhook_deliveries)
    Repo.query!("ALTER TABLE #{table} RENAME TO elsewhere")
    view = page!(context)
    assert shows!(view, "cannot be shown now") =~ "CRM"
    Repo.query!(~s(ALTER TABLE "#{context.prefix}".elsewhere RENAME TO webhook_deliveries))
    {:ok, _} = API.update_webhook(context.name, :owner, 1, webhook.id, %{name: "ERP"})
    assert shows!(view, "ERP")
    shows!(view, "No events in 24 h")
  end

  test "the limit of webhooks is said, with its number, before a form is filled", context do
    context = start_page!(context, webhooks_per_site_max: 1)
    webhook!(context, "/hook")
    view = page!(context)
    assert render(view) =~ "This site has all of its 1 webhooks."
    refute has_element?(view, "#webhooks-add")
    view = page!(context, "/new")
    assert render(view) =~ "This site has all of its 1 webhooks."
    refute has_element?(view, "#webhook-form")
  end

  test "what was done before is said", context do
    context = start_page!(context)
    assert message(page!(context, "?done=deleted")) =~ "Webhook deleted."
    view = page!(context, "?done=deleted")
    click(view, "#webhook-message button")
    refute message(view) =~ "deleted"
    assert message(page!(context, "?done=<b>")) == ""
  end
end
