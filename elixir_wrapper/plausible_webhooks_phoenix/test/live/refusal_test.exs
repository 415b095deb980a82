defmodule PlausibleWeb.Live.WebhookSettings.RefusalTest do
  # Users without the permission, users who lose it, and forged events.
  use Plausible.Webhooks.Test.PageCase, async: true

  # Not to be met by chance: the tokens of a page are letters at random.
  @name "Our CRM"

  # Every event of each view, with the params that a client sends.
  @events %{
    "" => [],
    "/new" => [
      {"change", %{"webhook" => %{"url" => "https://example.com"}}},
      {"save", %{"webhook" => %{"url" => "https://example.com", "name" => "forged"}}},
      {"search", %{"search" => "Signup"}},
      {"add_header", %{}},
      {"remove_header", %{"key" => "1"}}
    ],
    "/WEBHOOK/edit" => [{"reload", %{}}, {"save", %{"webhook" => %{"name" => "forged"}}}],
    "/WEBHOOK" => [
      {"pause", %{}},
      {"resume", %{}},
      {"delete", %{}},
      {"test_type", %{"type" => "goal.completed"}},
      {"test", %{"type" => "goal.completed"}},
      {"request", %{}},
      {"request_hide", %{}},
      {"language", %{"language" => "go"}},
      {"reveal", %{}},
      {"hide", %{}},
      {"rotate", %{"overlap" => "0"}},
      {"recover_count", %{"since" => "2020-01-01T00:00"}},
      {"recover", %{}}
    ],
    "/deliveries" => [{"filter", %{"filter" => %{"state" => "failed"}}}, {"fresh", %{}}],
    "/deliveries/DELIVERY" => [{"redeliver", %{}}, {"request", %{}}]
  }

  defp address(template, webhook, delivery) do
    template |> String.replace("WEBHOOK", webhook.id) |> String.replace("DELIVERY", delivery.id)
  end

  defp set_up(context) do
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{name: @name})
    {context, webhook, accept!(context, webhook, state: :failed, reason: "x")}
  end

  defp everything(context) do
    {:ok, webhooks} = Store.list_webhooks(context.instance, 1)
    {:ok, page} = Store.deliveries(context.instance, 1, %{}, %{})
    {webhooks, page.entries}
  end

  test "whoever loses the right while a view is open: each event does nothing, and it reloads",
       context do
    {context, webhook, delivery} = set_up(context)
    before = everything(context)

    for {template, events} <- @events, {event, params} <- [{"nonsense", %{}} | events] do
      address = address(template, webhook, delivery)
      TestHost.put(context.host, {:role, :owner}, :owner)
      view = page!(context, address)
      TestHost.put(context.host, {:role, :owner}, :viewer)
      flush()
      forge(view, event, params)
      # The address is no longer found, and nothing of the site is left in a process.
      assert left!(view) == address, event
      refute_received {:host, :audit, _actor, _entry, _webhook}
      assert everything(context) == before
      assert HttpReceiver.count(context.receiver) == 0
    end
  end

  defp flush do
    receive do
      {:host, _, _, _, _} -> flush()
    after
      0 -> :ok
    end
  end

  test "what is revealed does not outlast the right, nor is it shown what happens", context do
    {context, webhook, delivery} = set_up(context)

    for template <- Map.keys(@events) do
      TestHost.put(context.host, {:role, :owner}, :owner)
      view = page!(context, address(template, webhook, delivery))
      if template == "/WEBHOOK", do: assert(forge(view, "reveal", %{}) =~ "whsec_")
      TestHost.put(context.host, {:role, :owner}, :nobody)
      send(view.pid, {:plausible_webhooks, :webhook_changed, %{}})
      assert left!(view) == address(template, webhook, delivery)
    end
  end

  test "the right is lost while something is under way: its result is not shown", context do
    {context, webhook, _delivery} = set_up(context)

    HttpReceiver.script(context.receiver, "/hook", [{:delay, 300, {200, [], "for managers only"}}])

    view = page!(context, "/#{webhook.id}")
    forge(view, "test", %{"type" => "webhook.test"})
    HttpReceiver.await(context.receiver, "/hook", 1)
    TestHost.put(context.host, {:role, :owner}, :viewer)
    forge(view, "hide", %{})
    assert left!(view) == "/#{webhook.id}"
  end

  test "the ids of others in the params of what concerns one's own change nothing", context do
    {context, webhook, _delivery} = set_up(context)

    {:ok, theirs} =
      API.create_webhook(context.name, :other, 2, %{
        url: HttpReceiver.url(context.receiver, "/theirs"),
        events: ["goal.completed"]
      })

    view = page!(context, "/#{webhook.id}")
    forge(view, "pause", %{"id" => theirs.id, "webhook_id" => theirs.id})
    assert {:ok, %{enabled: true}} = API.get_webhook(context.name, :other, 2, theirs.id)
    assert {:ok, %{enabled: false}} = API.get_webhook(context.name, :owner, 1, webhook.id)
  end

  test "events that a view does not have, and params that no form sends, do nothing", context do
    {context, webhook, delivery} = set_up(context)
    before = everything(context)
    all = @events |> Map.values() |> Enum.concat() |> Enum.map(&elem(&1, 0))

    for {template, events} <- @events do
      view = page!(context, address(template, webhook, delivery))
      own = Enum.map(events, &elem(&1, 0))
      for event <- all -- own, do: forge(view, event, %{})
      for params <- [%{"webhook" => 7}, %{"filter" => [1]}], do: forge(view, "change", params)
      assert render(view) =~ "webhook-settings"
    end

    view = page!(context, "/#{webhook.id}")
    for event <- ~w(test_type language rotate recover_count), do: forge(view, event, %{})
    assert everything(context) == before
  end
end
