defmodule PlausibleWeb.Live.WebhookSettings.ListTest do
  use Plausible.Webhooks.Test.PageCase, async: true

  test "says what webhooks are for, as long as there are none", context do
    view = context |> start_page!() |> page!()
    assert render(view) =~ "No webhooks yet"
    html = click(view, "#webhooks-add")
    assert html =~ "Where we send POST requests"
  end

  test "each with its name, host, types and state", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook?token=secret", %{name: "CRM"})
    other = webhook!(context, "/b", %{events: ["traffic.spike"], spike_threshold: 5})
    {:ok, _} = API.disable_webhook(context.name, :owner, 1, other.id)
    view = page!(context)

    text = text_of(view, "#webhook-#{webhook.id}")
    assert text =~ "CRM"
    assert text =~ "127.0.0.1"
    assert text =~ "Goal completed"
    assert text =~ "Active"
    assert text =~ "Nothing sent in 24 h"
    assert text =~ "Last delivery: None yet"

    text = text_of(view, "#webhook-#{other.id}")
    assert text =~ "Webhook for 127.0.0.1"
    assert text =~ "Traffic spike"
    assert text =~ "Paused"
    refute render(view) =~ "token=secret"
  end

  test "the last 24 hours: success rate, chart, last delivery, what waits", context do
    context = start_page!(context, retry_delays_ms: [3_600_000])
    webhook = webhook!(context, "/hook")
    HttpReceiver.script(context.receiver, "/hook", [200, 200, 200, 500])
    ids = for _ <- 1..4, do: sent!(context, webhook)
    view = page!(context)
    row = "#webhook-#{webhook.id}"
    shows!(view, "1 waiting")
    text = text_of(view, row)
    assert text =~ "Delivered in 24 h: 100 % of 3"
    assert text =~ "Waiting"
    assert text =~ ~r/next attempt in 59:\d\d|next attempt in 1:00:00/
    html = view |> element("#{row} svg[role=img]") |> render()
    assert html =~ "Last 24 hours: 3 delivered, 0 failed, 0 cancelled"
    click(view, "#{row} button[phx-value-id=#{List.last(ids)}]")
    assert render(view) =~ List.last(ids)
  end

  test "why it is switched off, and since when it fails", context do
    context = start_page!(context, retry_delays_ms: [])
    gone = webhook!(context, "/gone")
    failing = webhook!(context, "/failing")
    HttpReceiver.script(context.receiver, "/gone", [410])
    HttpReceiver.script(context.receiver, "/failing", [500])
    sent!(context, gone)
    sent!(context, failing)
    view = page!(context)
    shows!(view, "because your endpoint answered 410")
    assert text_of(view, "#webhook-#{gone.id}") =~ "Switched off"
    shows!(view, "Every attempt has failed since")
    assert text_of(view, "#webhook-#{failing.id}") =~ "Failing"
  end

  test "what others do shows by itself: webhooks, deliveries", context do
    context = start_page!(context)
    view = page!(context)
    webhook = webhook!(context, "/hook", %{name: "Added elsewhere"})
    shows!(view, "Added elsewhere")
    sent!(context, webhook)
    shows!(view, "100 % of 1")
    {:ok, _} = API.update_webhook(context.name, :owner, 1, webhook.id, %{name: "Renamed"})
    shows!(view, "Renamed")
    :ok = API.delete_webhook(context.name, :owner, 1, webhook.id)
    shows!(view, "No webhooks yet")
  end

  test "an activity that cannot be read leaves the rest", context do
    context = start_page!(context)
    webhook!(context, "/hook", %{name: "CRM"})
    table = ~s("#{context.prefix}".webhook_deliveries)
    Repo.query!("ALTER TABLE #{table} RENAME TO elsewhere")
    view = page!(context)
    assert shows!(view, "cannot be shown now") =~ "CRM"
    Repo.query!(~s(ALTER TABLE "#{context.prefix}".elsewhere RENAME TO webhook_deliveries))
    {:ok, _} = API.update_webhook(context.name, :owner, 1, only(context).id, %{name: "ERP"})
    assert shows!(view, "ERP")
    shows!(view, "Nothing sent in 24 h")
  end

  test "what breaks while it is read breaks nothing else", context do
    context = start_page!(context)
    webhook!(context, "/hook", %{name: "CRM"})
    view = page!(context)
    %{socket: socket} = :sys.get_state(view.pid)
    key = {PlausibleWeb.Live.WebhookSettings.Assigns, :webhooks}

    {:noreply, socket} =
      PlausibleWeb.Live.WebhookSettings.handle_async(key, {:exit, :killed}, socket)

    assert %{message: %{text: "That did not work." <> _, tone: :bad}, webhooks: [_]} =
             socket.assigns

    refute MapSet.member?(socket.assigns.loading, key)
  end

  test "the limit of webhooks is said", context do
    context = start_page!(context, webhooks_per_site_max: 1)
    webhook!(context, "/hook")
    view = page!(context)
    click(view, "#webhooks-add")

    view
    |> form("#webhook-form", webhook: %{url: HttpReceiver.url(context.receiver, "/b")})
    |> render_submit()

    assert render(view) =~ "reached its limit of webhooks"
  end

  defp only(context) do
    {:ok, [webhook]} = API.list_webhooks(context.name, :owner, 1)
    webhook
  end

  defp sent!(context, webhook) do
    delivery = delivery(webhook)
    Outbox.push(context.instance, [delivery])

    eventually(fn ->
      match?({:ok, %{attempts: n}} when n > 0, API.delivery(context.name, :owner, 1, delivery.id))
    end)

    delivery.id
  end
end
