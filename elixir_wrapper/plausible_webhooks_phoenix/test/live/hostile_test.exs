defmodule PlausibleWeb.Live.WebhookSettings.HostileTest do
  # What strangers wrote shows as text, wherever it shows.
  use Plausible.Webhooks.Test.PageCase, async: true

  @markup "<script>alert(1)</script><img src=x onerror=alert(1)>"
  @bidi "safe\u202Egpj.exe\u2066"
  @control "a\u0000b\u001b[31mc\u2028d\u200Be"

  # None of it as an element or an attribute, no character that turns the text.
  defp harmless!(html) do
    refute html =~ "<script>alert"
    refute html =~ "<img src=x"
    refute html =~ ~r/[\x{202A}-\x{202E}\x{2066}-\x{2069}\x{200E}\x{200F}\x{2028}\x{200B}\x{1b}]/u
    assert String.valid?(html)
    html
  end

  defp hostile_goals(context) do
    goals =
      for {name, id} <- Enum.with_index([@markup, @bidi, @control], 12),
          do: TestHost.event_goal(id, name)

    TestHost.put(context.host, {:goals, 1}, goals)
  end

  test "goals, in the form and in the log's filter", context do
    hostile_goals(context)
    context = start_page!(context)
    view = page!(context)
    click(view, "#webhooks-add")
    view |> form("#webhook-form", webhook: %{goals: "some"}) |> render_change()
    html = view |> settled() |> harmless!()
    assert html =~ "&lt;script&gt;alert(1)&lt;/script&gt;"
    assert html =~ "safe[U+202E]gpj.exe[U+2066]"
    assert html =~ "a[U+0000]b[U+001B][31mc[U+2028]d[U+200B]e"
    click(view, "button[phx-click='page.log']", "Deliveries")
    assert view |> render() |> harmless!() =~ "safe[U+202E]gpj.exe"
  end

  test "descriptions that were written into the store by other ways", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")

    for name <- [@markup, @bidi, @control] do
      {:ok, stored} = Store.get_webhook(context.instance, webhook.id)
      {:ok, _} = Store.update_webhook(context.instance, %{stored | name: name})
      view = page!(context)
      harmless!(render(view))

      for event <- ~w(page.webhook webhook.delete page.log),
          do: view |> forge(event, %{"id" => webhook.id}) |> harmless!()

      view |> settled() |> harmless!()
    end
  end

  test "what a receiver answers, and what it says its type is", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    body = @markup <> @bidi <> @control <> <<255, 254, 0>> <> "\r\nsecond line"

    HttpReceiver.script(context.receiver, "/hook", [
      {500, [{"content-type", "text/html;<b>\"x"}], body}
    ])

    view = page!(context)
    click(view, "#webhook-#{webhook.id} h3 button")
    view |> form("#webhook-test-form") |> render_submit()
    html = view |> settled() |> harmless!()
    assert html =~ "&lt;img src=x onerror=alert(1)&gt;"
    assert html =~ "[U+202E]gpj.exe"
    assert html =~ "[0xFF][0xFE][U+0000]"
    assert html =~ "\nsecond line"
    assert html =~ "text/html;&lt;b&gt;&quot;x"
    click(view, "#webhook-test-result button", "Open in the log")
    assert view |> render() |> harmless!() =~ "[0xFF][0xFE]"
  end

  test "a long answer is cut, in the middle of a character if need be", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")

    HttpReceiver.script(context.receiver, "/hook", [
      {500, [], "a" <> String.duplicate("ü", 20_000)}
    ])

    view = page!(context)
    click(view, "#webhook-#{webhook.id} h3 button")
    view |> form("#webhook-test-form") |> render_submit()
    html = view |> settled() |> harmless!()
    assert html =~ "Answer (cut after 2.0 KiB)"
    assert byte_size(html) < 60_000
  end

  test "bodies that were sent, with names in them: shown, in curl and in code", context do
    hostile_goals(context)
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{headers: [{"X-A", "it's <b>\"$(id)\" `id`</b>"}]})
    {:ok, attempt} = API.send_test(context.name, :owner, 1, webhook.id, "goal.completed")
    view = page!(context)
    forge(view, "page.delivery", %{"id" => attempt.delivery_id})
    html = view |> settled() |> harmless!()
    assert html =~ "&lt;/script&gt;" or html =~ "&amp;lt;/script&amp;gt;"
    click(view, "#delivery-request-show")
    view |> render() |> harmless!()

    for {language, _name} <- PlausibleWeb.Live.WebhookSettings.Snippets.languages() do
      view |> form("#delivery-language", language: to_string(language)) |> render_change()
      view |> render() |> harmless!()
    end
  end

  test "what is typed into the form", context do
    context = start_page!(context)
    view = page!(context)
    click(view, "#webhooks-add")
    click(view, "#webhook-add-header")
    hostile = @markup <> "\" onfocus=\"alert(1)"

    params = %{
      "url" => "https://" <> hostile,
      "name" => hostile,
      "search" => hostile,
      "headers" => %{"1" => %{"name" => hostile, "value" => hostile}},
      "spike" => %{"value" => hostile},
      "interval" => hostile,
      "secret" => hostile,
      "events" => ["traffic.spike", hostile]
    }

    html = forge(view, "form.save", %{"webhook" => params})
    harmless!(html)
    refute html =~ ~s(" onfocus="alert)
  end

  test "no style, script or handler stands in line, in any view", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    {:ok, attempt} = API.send_test(context.name, :owner, 1, webhook.id, "webhook.test")
    view = page!(context)

    for {event, params} <- [
          {"page.list", %{}},
          {"page.new", %{}},
          {"page.log", %{}},
          {"page.webhook", %{"id" => webhook.id}},
          {"webhook.delete", %{}},
          {"webhook.reveal", %{}},
          {"page.delivery", %{"id" => attempt.delivery_id}},
          {"delivery.request", %{}}
        ] do
      forge(view, event, params)
      html = settled(view)
      refute html =~ ~r/<(script|style|iframe|object|embed|link)\b/i, event
      refute html =~ ~r/\s(on\w+|style|href="javascript)=/i, event
      # No attribute is given twice: the second would be lost.
      for [tag] <- Regex.scan(~r/<[a-z][^>]*>/, html), do: assert(unique_attributes?(tag), tag)
    end
  end

  defp unique_attributes?(tag) do
    names = Regex.scan(~r/\s([a-z-]+)="/, tag, capture: :all_but_first)
    names == Enum.uniq(names)
  end

  test "no two elements of a view have the same id", context do
    context = start_page!(context)

    webhook =
      webhook!(context, "/hook", %{
        events: ["goal.completed", "traffic.spike", "traffic.drop"],
        spike_threshold: 1,
        drop_threshold: 1,
        goals: [12]
      })

    {:ok, attempt} = API.send_test(context.name, :owner, 1, webhook.id, "webhook.test")
    view = page!(context)

    for {event, params} <- [
          {"page.webhook", %{"id" => webhook.id}},
          {"webhook.rotate", %{}},
          {"webhook.reveal", %{}},
          {"webhook.edit", %{}},
          {"page.log", %{}},
          {"page.delivery", %{"id" => attempt.delivery_id}},
          {"delivery.request", %{}}
        ] do
      forge(view, event, params)
      ids = Regex.scan(~r/\sid="([^"]+)"/, settled(view), capture: :all_but_first)
      assert ids == Enum.uniq(ids), "#{event}: #{inspect(ids -- Enum.uniq(ids))}"
    end
  end
end
