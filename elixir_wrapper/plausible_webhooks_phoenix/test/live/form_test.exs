defmodule PlausibleWeb.Live.WebhookSettings.FormTest do
  use Plausible.Webhooks.Test.PageCase, async: true

  defp open_new(context) do
    view = page!(context)
    click(view, "#webhooks-add")
    view
  end

  defp open_edit(context, webhook) do
    view = page!(context)
    click(view, "#webhook-#{webhook.id} h3 button")
    click(view, "button", "Edit")
    view
  end

  defp change(view, params) do
    view |> form("#webhook-form", webhook: params) |> render_change()
    settled(view)
  end

  defp search(view, text) do
    view |> element("#webhook-goal-search") |> render_change(%{"search" => text})
    settled(view)
  end

  defp save(view, params) do
    view |> form("#webhook-form", webhook: params) |> render_submit()
    settled(view)
  end

  defp only(context) do
    {:ok, [webhook]} = API.list_webhooks(context.name, :owner, 1)
    webhook
  end

  describe "the URL" do
    test "is judged as it is typed, in words", context do
      context = start_page!(context, policy: %{})
      view = open_new(context)
      assert text_of(view, "#webhook-url-check") == ""

      for {url, text} <- [
            {"https://example.com/hook", "We will deliver to example.com, port 443."},
            {"  https://EXAMPLE.com:8443/a ", "We will deliver to example.com, port 8443."},
            {"https://bücher.example/",
             "deliver to bücher.example (written xn--bcher-kva.example in DNS)"},
            {"https://xn--bcher-kva.example/", "deliver to bücher.example"},
            {"http://example.com/", "The URL must begin with https://."},
            {"ftp://example.com/", "The URL must begin with https://"},
            {"https://user:secret@example.com/", "must not hold a user name or password"},
            {"https://localhost/", "must name a host that the whole internet knows"},
            {"https://10.0.0.1/", "must not name an address inside a network"},
            {"https://example.com:25/", "must not name this port"},
            {"nonsense", "The URL "},
            {"", ""}
          ] do
        change(view, %{url: url})
        shown = text_of(view, "#webhook-url-check")
        assert shown =~ text, "#{url}: #{shown}"
        refute shown =~ "secret"
      end
    end

    test "is saved whether anything answers there or not", context do
      context = start_page!(context)
      view = open_new(context)
      HttpReceiver.stop_listening(context.receiver)
      url = HttpReceiver.url(context.receiver, "/nobody")
      html = save(view, %{url: url})
      assert html =~ "Webhook added. Copy its secret to your receiver, then send a test."
      assert only(context).url == url
      assert HttpReceiver.count(context.receiver) == 0
    end

    test "what saving says stands by the field and in the summary, which gets the focus",
         context do
      context = start_page!(context)
      view = open_new(context)
      html = save(view, %{url: "ftp://x", events: [""]})
      assert text_of(view, "#webhook-form-errors") =~ "Not saved yet"
      assert text_of(view, "#webhook-form-errors") =~ "Events must be a list of at least one of"
      assert text_of(view, "#webhook-url-error") =~ "The URL must begin with"
      assert view |> element("#webhook-url") |> render() =~ ~s(aria-invalid="true")
      assert view |> element("#webhook-url") |> render() =~ "webhook-url-error"
      assert html =~ "#webhook-form-errors"
      assert {:ok, []} = API.list_webhooks(context.name, :owner, 1)
      # What is changed is judged anew, and the rest stays said.
      change(view, %{url: HttpReceiver.url(context.receiver, "/hook")})
      refute has_element?(view, "#webhook-url-error")
      assert text_of(view, "#webhook-form-errors") =~ "Events must be"
      change(view, %{events: ["goal.completed"]})
      refute text_of(view, "#webhook-form-errors") =~ "Not saved yet"
    end
  end

  test "a new webhook: everything that can be chosen", context do
    context = start_page!(context)
    view = open_new(context)

    change(view, %{
      events: ["goal.completed", "traffic.spike", "traffic.drop", "traffic.resolved"],
      goals: "some"
    })

    change(view, %{drop: %{mode: "notifier"}})
    click(view, "#webhook-add-header")
    click(view, "#webhook-add-header")
    click(view, "#webhook-add-header")
    click(view, "button[phx-click='form.remove_header'][phx-value-key='2']")
    key = "whsec_" <> Base.encode64(:binary.copy(<<5>>, 32))

    save(view, %{
      url: HttpReceiver.url(context.receiver, "/hook"),
      name: "CRM",
      goal: %{"12" => "true"},
      spike: %{value: "300"},
      interval: "3600",
      headers: %{
        "1" => %{name: "Authorization", value: "Bearer x"},
        "3" => %{name: "", value: ""}
      },
      secret: key
    })

    webhook = only(context)
    assert webhook.name == "CRM"
    assert webhook.events == ~w(goal.completed traffic.spike traffic.drop traffic.resolved)
    assert webhook.goals == [12]
    assert render(view) =~ "1 goal"
    refute render(view) =~ "1 goals"
    assert webhook.spike_threshold == 300
    assert webhook.drop_threshold == :notifier
    assert webhook.traffic_min_interval_s == 3_600
    assert webhook.headers == [{"Authorization", "Bearer x"}]
    assert {:ok, [%{key: ^key}]} = API.reveal_secret(context.name, :owner, 1, webhook.id)
    # Header values may hold tokens: names are enough where nobody edits.
    assert render(view) =~ "Authorization"
    refute render(view) =~ "Bearer x"
  end

  test "an existing one: what stands there, what is changed, and what stays", context do
    context = start_page!(context)

    webhook =
      webhook!(context, "/hook", %{
        name: "CRM",
        events: ["goal.completed", "traffic.spike"],
        goals: [12],
        spike_threshold: 40,
        traffic_min_interval_s: 1_234,
        headers: [{"X-Token", "abc"}]
      })

    view = open_edit(context, webhook)
    assert text_of(view, "#webhook-form-title") == "Edit CRM"
    assert view |> element("#webhook-goal-12[checked]") |> has_element?()
    assert view |> element("#webhook-spike-value") |> render() =~ ~s(value="40")
    assert view |> element("#webhook-interval option[selected]") |> render() =~ ~s(value="1234")
    refute has_element?(view, "#webhook-secret")
    html = save(view, %{name: "ERP"})
    assert html =~ "Saved. The change applies from the next event."
    kept = [:url, :events, :goals, :spike_threshold, :traffic_min_interval_s, :headers]
    after_it = only(context)
    assert after_it.name == "ERP"
    assert Map.take(after_it, kept) == Map.take(webhook, kept)
  end

  test "cancelling saves nothing and leads back", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{name: "CRM"})
    view = open_edit(context, webhook)
    change(view, %{name: "Changed"})
    click(view, "button", "Cancel")
    assert text_of(view, "#webhook-title") == "CRM"
    assert only(context).name == "CRM"
    click(view, "button[phx-click='page.list']", "All webhooks")
    click(view, "#webhooks-add")
    click(view, "button", "Cancel")
    assert text_of(view, "#webhooks-title") == "Webhooks"
  end

  describe "goals" do
    setup context do
      goals = for id <- 1..1_000, do: TestHost.event_goal(id, "Goal number #{id}")
      TestHost.put(context.host, {:goals, 1}, goals)
      :ok
    end

    test "a thousand are searched, and what was chosen before stays chosen", context do
      context = start_page!(context)
      view = open_new(context)
      change(view, %{goals: "some"})

      assert text_of(view, "#webhook-goals") =~
               "0 of 1,000 goals chosen. 950 more goals; type to find them."

      search(view, "NUMBER 77")
      assert text_of(view, "#webhook-goals") =~ "Goal number 777"
      refute text_of(view, "#webhook-goals") =~ "Goal number 12 "
      change(view, %{goal: %{"777" => "true"}})
      search(view, "number 1000")
      change(view, %{goal: %{"1000" => "true"}})
      assert text_of(view, "#webhook-goals") =~ "2 of 1,000 goals chosen."
      search(view, "number 777")
      change(view, %{goal: %{"777" => "false"}})
      assert text_of(view, "#webhook-goals") =~ "1 of 1,000 goals chosen."
      change(view, %{goal: %{"777" => "true"}})
      search(view, "nothing like it")
      assert text_of(view, "#webhook-goals") =~ "No goal has this name."
      save(view, %{url: HttpReceiver.url(context.receiver, "/hook")})
      assert only(context).goals |> Enum.sort() == [777, 1_000]
    end

    test "none chosen is said", context do
      context = start_page!(context)
      view = open_new(context)
      change(view, %{goals: "some"})
      save(view, %{url: HttpReceiver.url(context.receiver, "/hook")})
      assert text_of(view, "#webhook-goals-error") =~ "Goals must be all, or at least one goal."
    end

    test "one that the site has no more is said, and left out by saving", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook", %{goals: [5, 5_000]})
      view = open_edit(context, webhook)
      assert text_of(view, "#webhook-goals") =~ "1 of 1,000 goals chosen."
      assert text_of(view, "#webhook-goals") =~ "Chosen goals that no longer exist: 1"
      save(view, %{})
      assert only(context).goals == [5]
    end

    test "that cannot be read leave the choice as it is", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook", %{goals: [5]})
      TestHost.put(context.host, {:goals, 1}, fn -> raise "away" end)
      view = open_edit(context, webhook)
      assert text_of(view, "#webhook-goals") =~ "cannot be read now"
      save(view, %{name: "CRM"})
      assert %{goals: [5], name: "CRM"} = only(context)
    end

    test "a site without any is told", context do
      TestHost.put(context.host, {:goals, 1}, [])
      context = start_page!(context)
      view = open_new(context)
      change(view, %{goals: "some"})
      assert text_of(view, "#webhook-goals") =~ "This site has no goals yet."
    end
  end

  describe "thresholds" do
    test "the site's figures of now stand beside them", context do
      TestHost.put(context.host, :visitors, {:ok, [41, 2_210]})
      context = start_page!(context)
      view = open_new(context)
      change(view, %{events: ["traffic.spike", "traffic.drop"]})
      assert text_of(view, "#webhook-spike-figure") == "Now: 41 visitors in the last 5 minutes."
      assert text_of(view, "#webhook-drop-figure") == "Now: 2,210 visitors in the last 12 hours."
    end

    test "figures that cannot be had are no reason to wait", context do
      TestHost.put(context.host, :visitors, {:error, :away})
      context = start_page!(context)
      view = open_new(context)
      change(view, %{events: ["traffic.spike"]})
      assert text_of(view, "#webhook-spike-figure") =~ "cannot be read now"
      save(view, %{url: HttpReceiver.url(context.receiver, "/a"), spike: %{value: "5"}})
      assert only(context).spike_threshold == 5
    end

    test "wrong ones are said by the field", context do
      context = start_page!(context)
      view = open_new(context)
      url = HttpReceiver.url(context.receiver, "/a")
      change(view, %{events: ["traffic.spike"]})

      for {value, text} <- [
            {"", "is required for traffic.spike"},
            {"0", "must be an integer from 1"},
            {"many", "must be an integer"}
          ] do
        save(view, %{url: url, spike: %{value: value}})
        assert text_of(view, "#webhook-spike-value-error") =~ text
      end

      change(view, %{events: ["traffic.spike", "traffic.resolved"], spike: %{mode: "notifier"}})
      save(view, %{})
      assert text_of(view, "#webhook-events-error") =~ "traffic.resolved needs a threshold"
    end
  end

  test "headers that may not be are said, and twenty are the most", context do
    context = start_page!(context)
    view = open_new(context)
    click(view, "#webhook-add-header")
    url = HttpReceiver.url(context.receiver, "/a")
    save(view, %{url: url, headers: %{"1" => %{name: "Host", value: "x"}}})

    assert text_of(view, "#webhook-headers-error") =~
             "Extra headers: header 1 has a name that is reserved."

    for _ <- 2..20, do: click(view, "#webhook-add-header")
    assert has_element?(view, "#webhook-add-header[disabled]")
    forge(view, "form.add_header", %{})
    refute has_element?(view, "#webhook-header-21-name")
  end

  test "somebody else saved it a moment ago: it is said before it is put over", context do
    context = start_page!(context, observers: [])
    webhook = webhook!(context, "/hook", %{name: "CRM"})
    view = open_edit(context, webhook)
    {:ok, _} = API.update_webhook(context.name, :owner, 1, webhook.id, %{name: "Theirs"})
    html = save(view, %{name: "Mine"})
    assert html =~ "Somebody else changed this webhook"
    assert only(context).name == "Theirs"

    save(view, %{name: "Mine"})
    assert only(context).name == "Mine"
  end

  test "one that is deleted meanwhile is left for the list", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{name: "CRM"})
    webhook!(context, "/other", %{name: "Another"})
    view = open_edit(context, webhook)
    :ok = API.delete_webhook(context.name, :owner, 1, webhook.id)
    html = render_click(view, "page.cancel_form", %{})
    assert html =~ "Another"
    refute html =~ "#webhook-form"
    # And a new one has no values of others.
    click(view, "#webhooks-add")
    assert forge(view, "form.reload", %{}) =~ "webhook-form"
  end

  test "a host that cannot be asked who may is no loss of the right", context do
    context = start_page!(context)
    view = open_new(context)
    change(view, %{name: "Half an hour's work"})
    TestHost.put(context.host, {:role, :owner}, fn -> raise "the database is away" end)
    html = change(view, %{name: "Half an hour's work!"})
    assert html =~ "the database did not answer"
    assert html =~ "Half an hour"
    send(view.pid, {:plausible_webhooks, :accepted, %{}})
    refute settled(view) =~ "You can no longer"

    TestHost.put(context.host, {:role, :owner}, :owner)
    save(view, %{name: "Half an hour's work!", url: HttpReceiver.url(context.receiver, "/x")})
    assert only(context).name == "Half an hour's work!"
  end

  test "somebody else saves it meanwhile: it is said, and theirs can be loaded", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{name: "CRM"})
    view = open_edit(context, webhook)
    change(view, %{name: "Mine"})
    {:ok, _} = API.update_webhook(context.name, :owner, 1, webhook.id, %{name: "Theirs"})
    shows!(view, "Somebody else changed this webhook")
    assert view |> element("#webhook-name") |> render() =~ "Mine"
    click(view, "button[phx-click='form.reload']")
    assert view |> element("#webhook-name") |> render() =~ "Theirs"
    refute render(view) =~ "Somebody else"
  end

  test "what is no form changes nothing", context do
    context = start_page!(context)
    view = open_new(context)
    change(view, %{name: "CRM"})

    for params <- [
          %{},
          %{"webhook" => nil},
          %{"webhook" => %{"name" => ["a"], "url" => %{}, "events" => "x", "goal" => "12"}},
          %{"webhook" => %{"goal" => %{"x" => "true"}, "goals" => "none", "spike" => "y"}},
          %{"webhook" => %{"headers" => %{"9" => %{"name" => "a"}}, "interval" => %{}}},
          %{"webhook" => %{"name" => String.duplicate("a", 10_000)}}
        ] do
      forge(view, "form.change", params)
      assert view |> element("#webhook-name") |> render() =~ ~s(value="CRM")
    end
  end
end
