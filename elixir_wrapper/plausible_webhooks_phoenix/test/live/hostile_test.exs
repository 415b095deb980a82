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
    view = page!(context, "/new")
    html = view |> change("#webhook-form", webhook: %{goals: "some"}) |> harmless!()
    assert html =~ "&lt;script&gt;alert(1)&lt;/script&gt;"
    assert html =~ "safe[U+202E]gpj.exe[U+2066]"
    assert html =~ "a[U+0000]b[U+001B][31mc[U+2028]d[U+200B]e"
    assert context |> page!("/deliveries") |> render() |> harmless!() =~ "safe[U+202E]gpj.exe"
  end

  test "descriptions that were written into the store by other ways", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")

    for name <- [@markup, @bidi, @control] do
      {:ok, stored} = Store.get_webhook(context.instance, webhook.id)
      {:ok, _} = Store.update_webhook(context.instance, %{stored | name: name})

      for address <- ["", "/#{webhook.id}", "/deliveries"],
          do: context |> page!(address) |> render() |> harmless!()
    end
  end

  test "what a receiver answers, and what it says its type is", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    body = @markup <> @bidi <> @control <> <<255, 254, 0>> <> "\r\nsecond line"

    HttpReceiver.script(context.receiver, "/hook", [
      {500, [{"content-type", "text/html;<b>\"x"}], body}
    ])

    view = page!(context, "/#{webhook.id}")
    html = view |> submit("#webhook-test-form") |> harmless!()
    assert html =~ "&lt;img src=x onerror=alert(1)&gt;"
    assert html =~ "[U+202E]gpj.exe"
    assert html =~ "[0xFF][0xFE][U+0000]"
    assert html =~ "\nsecond line"
    assert html =~ "text/html;&lt;b&gt;&quot;x"
    delivery = page!(context, link_of(view, "#webhook-test-result a"))
    assert delivery |> render() |> harmless!() =~ "[0xFF][0xFE]"
  end

  test "a long answer is cut, in the middle of a character if need be", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")

    HttpReceiver.script(context.receiver, "/hook", [
      {500, [], "a" <> String.duplicate("ü", 20_000)}
    ])

    view = page!(context, "/#{webhook.id}")
    html = view |> submit("#webhook-test-form") |> harmless!()
    assert html =~ "Answer (cut after 16.0 KiB)"
    assert byte_size(html) < 60_000
  end

  test "bodies that were sent, with names in them: shown, in curl and in code", context do
    hostile_goals(context)
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{headers: [{"X-A", "it's <b>\"$(id)\" `id`</b>"}]})
    {:ok, attempt} = API.send_test(context.name, :owner, 1, webhook.id, "goal.completed")
    view = page!(context, "/deliveries/#{attempt.delivery_id}")
    html = harmless!(render(view))
    assert html =~ "&lt;/script&gt;" or html =~ "&amp;lt;/script&amp;gt;"
    click(view, "#request-show")
    view |> render() |> harmless!()

    for {language, _name} <- PlausibleWeb.Live.WebhookSettings.Snippets.languages() do
      view |> change("#request-language", language: to_string(language)) |> harmless!()
    end
  end

  test "what is typed into the form", context do
    context = start_page!(context)
    view = page!(context, "/new")
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

    html = forge(view, "save", %{"webhook" => params})
    harmless!(html)
    refute html =~ ~s(" onfocus="alert)
  end

  # Every address, with everything open that can be opened.
  defp every_view(context) do
    webhook =
      webhook!(context, "/hook", %{
        events: ["goal.completed", "traffic.spike", "traffic.drop"],
        spike_threshold: 1,
        drop_threshold: 1,
        goals: [12]
      })

    {:ok, attempt} = API.send_test(context.name, :owner, 1, webhook.id, "webhook.test")

    for {address, events} <- [
          {"", []},
          {"/new", ["add_header"]},
          {"/#{webhook.id}/edit", []},
          {"/#{webhook.id}", ["reveal", "test", "request"]},
          {"/deliveries", []},
          {"/deliveries/#{attempt.delivery_id}", ["request"]}
        ] do
      view = page!(context, address, %{"script" => "host"})
      for event <- events, do: forge(view, event, %{})
      {address, settled(view)}
    end
  end

  test "no style, script or handler stands in line, no attribute and no id twice", context do
    for {address, html} <- context |> start_page!() |> every_view() do
      refute html =~ ~r/<(script|style|iframe|object|embed|link)\b/i, address
      refute html =~ ~r/\s(on\w+|style|href="javascript)=/i, address
      # Of an attribute that is given twice the second would be lost.
      for [tag] <- Regex.scan(~r/<[a-z][^>]*>/, html), do: assert(unique_attributes?(tag), tag)
      ids = Regex.scan(~r/\sid="([^"]+)"/, html, capture: :all_but_first)
      assert ids == Enum.uniq(ids), "#{address}: #{inspect(ids -- Enum.uniq(ids))}"
    end
  end

  defp unique_attributes?(tag) do
    names = Regex.scan(~r/\s([a-z-]+)="/, tag, capture: :all_but_first)
    names == Enum.uniq(names)
  end
end
