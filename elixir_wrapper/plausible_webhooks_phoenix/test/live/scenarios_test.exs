defmodule PlausibleWeb.Live.WebhookSettings.ScenariosTest do
  # The user stories of the settings page, step by step.
  use Plausible.Webhooks.Test.PageCase, async: true

  defp signup!(context), do: :ok = API.events_buffered(context.name, [signup()])

  defp signup do
    %{
      clickhouse_event: %{
        site_id: 1,
        name: "Signup",
        hostname: "site1.example",
        pathname: "/register",
        timestamp: NaiveDateTime.utc_now()
      }
    }
  end

  test "US3.1 a user adds a webhook in the form and sees its secret", context do
    context = start_page!(context)
    view = page!(context, link_of(page!(context), "#webhooks-add"))
    url = HttpReceiver.url(context.receiver, "/crm")
    view |> form("#webhook-form", webhook: %{url: url, name: "CRM"}) |> render_submit()
    view = next!(context, view)
    assert message(view) =~ "Webhook added."

    {:ok, [%{name: "CRM"} = webhook]} = API.list_webhooks(context.name, :owner, 1)
    {:ok, [%{key: secret}]} = API.reveal_secret(context.name, :owner, 1, webhook.id)
    click(view, "#webhook-reveal")
    assert render(view) =~ secret

    signup!(context)
    [request] = HttpReceiver.await(context.receiver, "/crm", 1)
    assert HttpReceiver.verify(request, [secret])
  end

  test "US3.2 a user edits a webhook and the next event follows", context do
    context = start_page!(context)
    view = page!(context, "/#{webhook!(context, "/before").id}/edit")
    url = HttpReceiver.url(context.receiver, "/after")
    view |> form("#webhook-form", webhook: %{url: url}) |> render_submit()
    assert message(next!(context, view)) =~ "Saved. The change applies from the next event."
    signup!(context)
    HttpReceiver.await(context.receiver, "/after", 1)
    assert HttpReceiver.count(context.receiver, "/before") == 0
  end

  test "US3.3 a user deletes a webhook, which gets nothing more", context do
    context = start_page!(context)
    view = page!(context, "/#{webhook!(context, "/gone").id}")
    other = webhook!(context, "/other")
    view |> element("#webhook-delete") |> render_click()
    assert message(next!(context, view)) =~ "Webhook deleted."
    assert {:ok, [^other]} = API.list_webhooks(context.name, :owner, 1)
    signup!(context)
    HttpReceiver.await(context.receiver, "/other", 1)
    assert HttpReceiver.count(context.receiver, "/gone") == 0
  end

  test "US4.1 a user sends a test and sees the response", context do
    context = start_page!(context)
    view = page!(context, "/#{webhook!(context, "/test").id}")
    html = submit(view, "#webhook-test-form", type: "goal.completed")
    assert html =~ "Delivered"
    [request] = HttpReceiver.await(context.receiver, "/test", 1)
    assert %{"type" => "goal.completed"} = Jason.decode!(request.body)
  end

  test "US4.2 a user sends a test to a failing endpoint and sees the reason", context do
    context = start_page!(context, retry_delays_ms: [])
    HttpReceiver.script(context.receiver, "/broken", [{500, [], "no database"}])
    view = page!(context, "/#{webhook!(context, "/broken").id}")
    html = submit(view, "#webhook-test-form", type: "webhook.test")
    assert html =~ "500"
    assert html =~ "no database"
  end
end
