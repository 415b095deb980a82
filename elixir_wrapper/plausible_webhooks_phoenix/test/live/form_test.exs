defmodule PlausibleWeb.Live.WebhookSettings.FormTest do
  use Plausible.Webhooks.Test.PageCase, async: true

  defp open_new(context), do: page!(context, "/new")
  defp open_edit(context, webhook), do: page!(context, "/#{webhook.id}/edit")
  defp change(view, params), do: change(view, "#webhook-form", webhook: params)
  defp save(view, params), do: submit(view, "#webhook-form", webhook: params)

  # A save that succeeds leads to the webhook.
  defp saved!(context, view, params) do
    view |> form("#webhook-form", webhook: params) |> render_submit()
    next!(context, view)
  end

  defp search(view, text) do
    view |> element("#webhook-goal-search") |> render_change(%{"search" => text})
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
            {"https://localhost/", "must name a host that is public on the internet"},
            {"https://10.0.0.1/", "must not name a private or reserved address"},
            {"https://example.com:25/", "must not name this port"},
            {"example.com:8443/hook", "We will deliver to example.com, port 8443."},
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
      view = saved!(context, view, %{url: url})
      assert message(view) =~ "Webhook added. Copy its secret to your receiver, then send a test."
      assert only(context).url == url
      assert HttpReceiver.count(context.receiver) == 0
    end

    test "without a scheme means https", context do
      context = start_page!(context, policy: %{})
      saved!(context, open_new(context), %{url: "example.com/hook"})
      assert only(context).url == "https://example.com/hook"
    end

    test "what saving says stands by each field, and the first one gets the focus", context do
      context = start_page!(context)
      view = open_new(context)
      html = save(view, %{url: "ftp://x", events: [""]})
      assert text_of(view, "#webhook-events-error") == "Choose at least one event."
      assert text_of(view, "#webhook-url-error") =~ "The URL must begin with"
      assert view |> element("#webhook-url") |> render() =~ ~s(aria-invalid="true")
      assert view |> element("#webhook-url") |> render() =~ "webhook-url-error"
      assert html =~ "#webhook-url&quot;"
      assert {:ok, []} = API.list_webhooks(context.name, :owner, 1)
      # What is changed is judged anew, and the rest stays said.
      change(view, %{url: HttpReceiver.url(context.receiver, "/hook")})
      refute has_element?(view, "#webhook-url-error")
      assert text_of(view, "#webhook-events-error") =~ "Choose at least one"
      change(view, %{events: ["goal.completed"]})
      refute has_element?(view, "#webhook-events-error")
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
    click(view, "button[phx-click='remove_header'][phx-value-key='2']")
    key = "whsec_" <> Base.encode64(:binary.copy(<<5>>, 32))

    view =
      saved!(context, view, %{
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
    # The goals and conditions chosen are named.
    for text <- [
          "Signup",
          "from 300 visitors in 5 minutes",
          "when the e-mail notification reports it"
        ],
        do: assert(text_of(view, "#webhook-settings-shown") =~ text)

    assert webhook.spike_threshold == 300
    assert webhook.drop_threshold == :notifier
    assert webhook.traffic_min_interval_s == 3_600
    assert webhook.headers == [{"Authorization", "Bearer x"}]
    assert {:ok, [%{key: ^key}]} = API.reveal_secret(context.name, :owner, 1, webhook.id)
    # Header values may hold tokens, so only the form shows them.
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
    assert text_of(view, "#webhooks-title") == "Edit CRM"
    assert view |> element("#webhook-goal-12[checked]") |> has_element?()
    assert view |> element("#webhook-spike-value") |> render() =~ ~s(value="40")
    assert view |> element("#webhook-interval option[selected]") |> render() =~ ~s(value="1234")
    refute has_element?(view, "#webhook-own-secret")
    view = saved!(context, view, %{name: "ERP"})
    assert message(view) =~ "Saved. The change applies from the next event."
    kept = [:url, :events, :goals, :spike_threshold, :traffic_min_interval_s, :headers]
    after_it = only(context)
    assert after_it.name == "ERP"
    assert Map.take(after_it, kept) == Map.take(webhook, kept)
  end

  test "cancelling is a link, before which unsaved edits ask", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{name: "CRM"})
    view = open_edit(context, webhook)
    refute has_element?(view, "#webhook-form[data-unsaved]")
    change(view, %{name: "Changed"})
    assert has_element?(view, "#webhook-form[data-unsaved]")
    assert link_of(view, "#webhook-cancel") == "/#{webhook.id}"
    change(view, %{name: "CRM"})
    refute has_element?(view, "#webhook-form[data-unsaved]")
    assert link_of(open_new(context), "#webhook-cancel") == ""
  end

  # What LiveView's form recovery does, on a view that knows nothing of the edits.
  test "the contents of a form outlast the view that had them", context do
    goals = for id <- 1..100, do: TestHost.event_goal(id, "Goal number #{id}")
    TestHost.put(context.host, {:goals, 1}, goals)
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{name: "CRM"})
    view = open_edit(context, webhook)
    change(view, %{name: "Half", events: ["goal.completed", "traffic.spike"], goals: "some"})
    change(view, %{goal: %{"3" => "true"}})
    search(view, "number 77")
    click(view, "#webhook-add-header")
    change(view, %{goal: %{"77" => "true"}, spike: %{value: "12"}})
    change(view, %{headers: %{"1" => %{name: "X-A", value: "b"}}})
    sent = recovered(view)
    {:ok, _} = API.update_webhook(context.name, :owner, 1, webhook.id, %{name: "Theirs"})
    again = open_edit(context, webhook)
    forge(again, "change", sent)
    settled(again)
    assert recovered(again) == sent
    # Somebody else's change is not lost by it.
    save(again, %{})
    assert render(again) =~ "Somebody else changed this webhook"
    saved!(context, again, %{})

    assert %{name: "Half", goals: [3, 77], spike_threshold: 12, headers: [{"X-A", "b"}]} =
             only(context)
  end

  # The fields of the form as a browser would send them.
  defp recovered(view) do
    fields =
      for [tag] <- Regex.scan(~r/<input [^>]*name="webhook[^>]*>/, render(view)),
          not (tag =~ ~r/type="(checkbox|radio)"/) or tag =~ " checked",
          [_, name] = Regex.run(~r/name="([^"]*)"/, tag),
          value = Regex.run(~r/value="([^"]*)"/, tag),
          do: {name, if(value, do: Enum.at(value, 1), else: "")}

    # Which goals are listed is the search's, which is no part of the form.
    fields = Enum.reject(fields, fn {name, value} -> name =~ "[goal]" and value == "false" end)
    fields |> Enum.sort_by(&elem(&1, 0)) |> URI.encode_query() |> Plug.Conn.Query.decode()
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
      saved!(context, view, %{url: HttpReceiver.url(context.receiver, "/hook")})
      assert only(context).goals |> Enum.sort() == [777, 1_000]
    end

    test "none chosen is said", context do
      context = start_page!(context)
      view = open_new(context)
      change(view, %{goals: "some"})
      save(view, %{url: HttpReceiver.url(context.receiver, "/hook")})
      assert text_of(view, "#webhook-goals-error") =~ "Choose at least one goal, or all goals."
    end

    test "one that the site has no more is said, and left out by saving", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook", %{goals: [5, 5_000]})
      view = open_edit(context, webhook)
      assert text_of(view, "#webhook-goals") =~ "1 of 1,000 goals chosen."
      assert text_of(view, "#webhook-goals") =~ "Chosen goals that no longer exist: 1"
      saved!(context, view, %{})
      assert only(context).goals == [5]
    end

    test "that cannot be read leave the choice as it is", context do
      context = start_page!(context)
      webhook = webhook!(context, "/hook", %{goals: [5]})
      TestHost.put(context.host, {:goals, 1}, fn -> raise "away" end)
      view = open_edit(context, webhook)
      assert text_of(view, "#webhook-goals") =~ "cannot be read now"
      saved!(context, view, %{name: "CRM"})
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

      saved!(context, view, %{url: HttpReceiver.url(context.receiver, "/a"), spike: %{value: "5"}})

      assert only(context).spike_threshold == 5
    end

    test "wrong ones are said by the field", context do
      context = start_page!(context)
      view = open_new(context)
      url = HttpReceiver.url(context.receiver, "/a")
      change(view, %{events: ["traffic.spike"]})

      for {value, text} <- [
            {"", "Enter a number of visitors."},
            {"0", "must be an integer from 1"},
            {"many", "must be an integer from 1 to 1000000000."}
          ] do
        save(view, %{url: url, spike: %{value: value}})
        assert text_of(view, "#webhook-spike-value-error") =~ text
      end

      change(view, %{events: ["traffic.spike", "traffic.resolved"], spike: %{mode: "notifier"}})
      save(view, %{})
      assert text_of(view, "#webhook-events-error") =~ "needs a spike or a drop with a number"
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
    forge(view, "add_header", %{})
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

    saved!(context, view, %{name: "Mine"})
    assert only(context).name == "Mine"
  end

  test "one that is deleted meanwhile is said, and saving says so too", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{name: "CRM"})
    view = open_edit(context, webhook)
    :ok = API.delete_webhook(context.name, :owner, 1, webhook.id)
    shows!(view, "Somebody else changed this webhook")
    save(view, %{name: "Mine"})
    assert message(view) =~ "This webhook no longer exists."
    click(view, "#webhook-reload")
    assert message(view) =~ "This webhook no longer exists."
  end

  test "a host that cannot be asked who may is no loss of the right", context do
    context = start_page!(context)
    view = open_new(context)
    change(view, %{name: "Half an hour's work"})
    TestHost.put(context.host, {:role, :owner}, fn -> raise "the database is away" end)
    html = change(view, %{name: "Half an hour's work!"})
    assert html =~ "the database did not answer"
    assert html =~ "Half an hour"
    send(view.pid, :refresh)
    assert settled(view) =~ "Half an hour"

    TestHost.put(context.host, {:role, :owner}, :owner)

    saved!(context, view, %{
      name: "Half an hour's work!",
      url: HttpReceiver.url(context.receiver, "/x")
    })

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
    click(view, "#webhook-reload")
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
          %{
            "webhook" => %{"headers" => %{"x" => %{"name" => "a"}, "0" => %{}}, "interval" => %{}}
          },
          %{"webhook" => %{"headers" => "x", "version" => "9.5"}},
          %{"webhook" => %{"name" => String.duplicate("a", 10_000)}}
        ] do
      forge(view, "change", params)
      assert view |> element("#webhook-name") |> render() =~ ~s(value="CRM")
    end
  end
end
