defmodule PlausibleWeb.Live.WebhookSettings.RefusalTest do
  use Plausible.Webhooks.Test.PageCase, async: true

  @lost "You can no longer manage this site"
  # Not to be met by chance: the tokens of a page are letters at random.
  @name "Our CRM"

  # Everything that the page understands, with what a client would send along.
  defp events(id, delivery_id) do
    [
      {"page.list", %{}},
      {"page.new", %{}},
      {"page.log", %{}},
      {"page.log", %{"webhook" => id}},
      {"page.webhook", %{"id" => id}},
      {"page.delivery", %{"id" => delivery_id}},
      {"page.back", %{}},
      {"page.cancel_form", %{}},
      {"form.change", %{"webhook" => %{"url" => "https://example.com"}}},
      {"form.save", %{"webhook" => %{"url" => "https://example.com", "name" => "forged"}}},
      {"form.search", %{"search" => "Signup"}},
      {"form.add_header", %{}},
      {"form.remove_header", %{"key" => "1"}},
      {"form.reload", %{}},
      {"webhook.edit", %{}},
      {"webhook.pause", %{}},
      {"webhook.resume", %{}},
      {"webhook.delete", %{}},
      {"webhook.delete_confirm", %{}},
      {"webhook.close_panel", %{}},
      {"webhook.test_type", %{"type" => "goal.completed"}},
      {"webhook.test", %{"type" => "goal.completed"}},
      {"webhook.sample", %{}},
      {"webhook.sample_hide", %{}},
      {"webhook.reveal", %{}},
      {"webhook.hide", %{}},
      {"webhook.rotate", %{}},
      {"webhook.rotate_confirm", %{"overlap" => "0"}},
      {"webhook.recover_count", %{"since" => "2020-01-01T00:00"}},
      {"webhook.recover", %{}},
      {"log.filter", %{"filter" => %{"state" => "failed"}}},
      {"log.clear", %{}},
      {"log.older", %{}},
      {"log.newer", %{}},
      {"delivery.redeliver", %{}},
      {"delivery.request", %{}},
      {"delivery.request_hide", %{}},
      {"delivery.language", %{"language" => "go"}}
    ]
  end

  # Where each of them is at home.
  defp show(view, "form." <> _, webhook, _delivery) do
    forge(view, "page.webhook", %{"id" => webhook.id})
    forge(view, "webhook.edit", %{})
  end

  defp show(view, "webhook." <> event, webhook, _delivery) do
    forge(view, "page.webhook", %{"id" => webhook.id})

    case event do
      "delete_confirm" -> forge(view, "webhook.delete", %{})
      "rotate_confirm" -> forge(view, "webhook.rotate", %{})
      "recover" -> forge(view, "webhook.recover_count", %{"since" => "2020-01-01T00:00"})
      _other -> :ok
    end
  end

  defp show(view, "log." <> _, _webhook, _delivery), do: forge(view, "page.log", %{})

  defp show(view, "delivery." <> _, _webhook, delivery),
    do: forge(view, "page.delivery", %{"id" => delivery.id})

  defp show(_view, _event, _webhook, _delivery), do: :ok

  defp set_up(context) do
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{name: @name})
    delivery = delivery(webhook, state: :failed, reason: "x")
    :ok = Store.accept(context.instance, [delivery])
    {context, webhook, delivery}
  end

  defp everything(context) do
    {:ok, webhooks} = Store.list_webhooks(context.instance, 1)
    {:ok, page} = Store.deliveries(context.instance, 1, %{}, %{})
    {webhooks, page.entries}
  end

  test "whoever loses the right while the page is open: each event is refused, and does nothing",
       context do
    {context, webhook, delivery} = set_up(context)
    before = everything(context)

    for {event, params} <- events(webhook.id, delivery.id) do
      TestHost.put(context.host, {:role, :owner}, :owner)
      view = page!(context)
      show(view, event, webhook, delivery)
      settled(view)
      TestHost.put(context.host, {:role, :owner}, :viewer)
      flush()
      html = forge(view, event, params)
      assert html =~ @lost, event
      settled(view)

      for shown <- [@name, "127.0.0.1", "whsec_", delivery.id],
          do: refute(render(view) =~ shown, event)

      # Nothing of it is left in the process either.
      state = inspect(:sys.get_state(view.pid).socket.assigns, limit: :infinity, structs: false)
      for kept <- [webhook.id, delivery.id, @name], do: refute(state =~ kept, "#{event}: #{kept}")
      refute_received {:host, :audit, _actor, _entry, _webhook}
      assert everything(context) == before
      assert HttpReceiver.count(context.receiver) == 0
      GenServer.stop(view.pid)
    end
  end

  defp flush do
    receive do
      {:host, _, _, _, _} -> flush()
    after
      0 -> :ok
    end
  end

  test "what is revealed does not outlast the right", context do
    {context, webhook, _delivery} = set_up(context)
    view = page!(context)
    forge(view, "page.webhook", %{"id" => webhook.id})
    assert forge(view, "webhook.reveal", %{}) =~ "whsec_"
    TestHost.put(context.host, {:role, :owner}, :viewer)
    send(view.pid, {:tick, :sys.get_state(view.pid).socket.assigns.ticking})
    assert render(view) =~ @lost
  end

  test "the way back from a delivery whose webhook is gone is the list", context do
    {context, webhook, delivery} = set_up(context)
    webhook!(context, "/other", %{name: "Another"})
    view = page!(context)
    forge(view, "page.webhook", %{"id" => webhook.id})
    forge(view, "page.delivery", %{"id" => delivery.id})
    :ok = API.delete_webhook(context.name, :owner, 1, webhook.id)
    assert forge(view, "page.back", %{}) =~ "Another"
  end

  test "nor is it shown what happens", context do
    {context, webhook, _delivery} = set_up(context)
    view = page!(context)
    TestHost.put(context.host, {:role, :owner}, :nobody)
    {:ok, stored} = Store.get_webhook(context.instance, webhook.id)
    {:ok, _} = Store.update_webhook(context.instance, %{stored | name: "Renamed"})
    send(view.pid, {:plausible_webhooks, :webhook_changed, %{}})
    shows!(view, @lost)
    refute render(view) =~ "Renamed"
  end

  test "and it does not come back by itself", context do
    {context, _webhook, _delivery} = set_up(context)
    view = page!(context)
    TestHost.put(context.host, {:role, :owner}, :viewer)
    assert forge(view, "page.list", %{}) =~ @lost
    TestHost.put(context.host, {:role, :owner}, :owner)
    send(view.pid, {:plausible_webhooks, :webhook_changed, %{}})
    settled(view)
    assert render(view) =~ @lost
  end

  test "the right is lost while something is under way: its result is not shown", context do
    {context, webhook, _delivery} = set_up(context)

    HttpReceiver.script(context.receiver, "/hook", [{:delay, 300, {200, [], "for managers only"}}])

    view = page!(context)
    forge(view, "page.webhook", %{"id" => webhook.id})
    forge(view, "webhook.test", %{"type" => "webhook.test"})
    HttpReceiver.await(context.receiver, "/hook", 1)
    TestHost.put(context.host, {:role, :owner}, :viewer)
    forge(view, "page.list", %{})
    settled(view)
    assert render(view) =~ @lost
    refute render(view) =~ "for managers only"
  end

  test "what was read before and comes after is not kept", context do
    {context, webhook, _delivery} = set_up(context)
    view = page!(context)
    TestHost.put(context.host, {:role, :owner}, :viewer)
    forge(view, "page.list", %{})
    %{socket: socket} = :sys.get_state(view.pid)
    key = {PlausibleWeb.Live.WebhookSettings.Assigns, :webhooks}

    {:noreply, socket} =
      PlausibleWeb.Live.WebhookSettings.handle_async(key, {:ok, {:ok, [webhook]}}, socket)

    assert socket.assigns.webhooks == []
  end

  test "another site's webhook and delivery are not found, one event after the other", context do
    context = start_page!(context)
    mine = webhook!(context, "/mine", %{name: "Mine"})

    {:ok, theirs} =
      API.create_webhook(context.name, :other, 2, %{
        url: HttpReceiver.url(context.receiver, "/theirs"),
        events: ["goal.completed"],
        name: "Theirs"
      })

    delivery = delivery(%{theirs | site_id: 2}, state: :failed, reason: "x")
    :ok = Store.accept(context.instance, [delivery])
    view = page!(context)

    assert forge(view, "page.webhook", %{"id" => theirs.id}) =~
             "This webhook no longer exists."

    assert forge(view, "page.delivery", %{"id" => delivery.id}) =~
             "This delivery no longer exists."

    forge(view, "page.log", %{"webhook" => theirs.id})
    refute settled(view) =~ delivery.id
    assert render(view) =~ "No delivery matches these filters."
    # The ids of others in the params of what concerns one's own.
    forge(view, "page.webhook", %{"id" => mine.id})
    settled(view)
    forge(view, "webhook.pause", %{"id" => theirs.id, "webhook_id" => theirs.id})
    assert {:ok, %{enabled: true}} = API.get_webhook(context.name, :other, 2, theirs.id)
    refute render(view) =~ "Theirs"
  end

  test "events of a view that is not shown, and such as there are none, do nothing", context do
    {context, webhook, delivery} = set_up(context)
    before = everything(context)

    for {event, params} <- events(webhook.id, delivery.id),
        not String.starts_with?(event, "page.") do
      view = page!(context)
      assert forge(view, event, params) =~ "That is not possible.", event
      GenServer.stop(view.pid)
    end

    assert everything(context) == before
    view = page!(context)

    for {event, params} <- [
          {"", %{}},
          {".", %{}},
          {"nonsense", %{}},
          {"page.nonsense", %{}},
          {"form.nonsense", %{}},
          {"Elixir.System.halt", %{}},
          {"page.webhook", %{"id" => 7}},
          {"page.webhook", %{"id" => %{}}},
          {"page.webhook", %{}},
          {"page.delivery", %{"id" => ["a"]}},
          {"page.delivery", %{"id" => nil}},
          {"page.back", %{}},
          {"page.webhook", %{"id" => "wh_nonsense"}},
          {"page.delivery", %{"id" => <<0, 255>>}}
        ] do
      html = forge(view, event, params)
      assert html =~ ~r/That is not possible|no longer exists/, inspect({event, params})
    end
  end
end
