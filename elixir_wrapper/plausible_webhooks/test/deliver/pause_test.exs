defmodule Plausible.Webhooks.Deliver.PauseTest do
  # What becomes of waiting deliveries when their webhook is paused, switched off or deleted.
  use Plausible.Webhooks.Test.InstanceCase, async: true

  alias Plausible.Webhooks, as: API
  alias Plausible.Webhooks.Manage.Changes

  @moduletag :capture_log

  describe "a change of the webhook, while a retry waits," do
    setup context do
      context = start!(context, retry_delays_ms: [50_000])
      webhook = webhook!(context, "/old")
      HttpReceiver.script(context.receiver, "/old", [500, 200])
      [id] = push(context, [delivery(webhook)])
      eventually(fn -> length(attempts(context, id)) == 1 end)
      Map.merge(context, %{webhook: webhook, id: id})
    end

    test "that pauses it holds the retry; resuming sends it", context do
      {:ok, _} = API.disable_webhook(context.name, :owner, 1, context.webhook.id)
      await_state(context, context.id, :held)
      assert Engine.stats(context.instance).waiting == 0
      assert HttpReceiver.count(context.receiver) == 1
      assert {:error, %Error{reason: :webhook_disabled}} = redeliver(context, context.id)

      {:ok, _} = enable_webhook(context, context.webhook.id)
      await_state(context, context.id, :delivered)
      [id] = push(context, [delivery(context.webhook)])
      await_state(context, id, :delivered)
    end

    test "that pauses it holds the retry; cancelling ends it, on record", context do
      {:ok, _} = update_webhook(context, context.webhook.id, %{enabled: false})
      await_state(context, context.id, :held)
      assert {:ok, 1} = cancel_held(context, context.webhook.id)
      assert %{state: :cancelled, reason: "cancelled_by_owner"} = logged(context, context.id)
      {:ok, _} = update_webhook(context, context.webhook.id, %{enabled: true})
      assert {:ok, 0} = cancel_held(context, context.webhook.id)

      assert {:ok, [%{action: "webhook_updated"}, %{action: "webhook_held_cancelled"} | _]} =
               API.audit_log(context.name, :owner, 1, context.webhook.id)

      assert HttpReceiver.count(context.receiver) == 1
    end

    test "that we make, since its receiver is gone, cancels the retry", context do
      :ok = Changes.disable(context.instance, context.webhook.id, :gone, nil)
      await_state(context, context.id, :cancelled)
      assert %{reason: "webhook_disabled"} = logged(context, context.id)
    end

    test "that deletes it: nothing more is sent", context do
      :ok = delete_webhook(context, context.webhook.id)
      # Matched before, committed after.
      [late] = push(context, [delivery(context.webhook)])
      eventually(fn -> Outbox.size(context.instance) == 0 end)
      eventually(fn -> Recorder.size(context.instance) == 0 end)
      eventually(fn -> Engine.stats(context.instance).waiting == 0 end)
      assert HttpReceiver.count(context.receiver) == 1
      assert {:ok, %{state: :cancelled}} = Store.get_delivery(context.instance, late)

      assert {:error, %Error{reason: :not_found}} =
               API.delivery(context.name, :owner, 1, context.id)
    end
  end

  @tag start: []
  test "a late delivery to a paused webhook is held, and sent by whoever finds it", context do
    {:ok, _} = disable_webhook(context, context.webhook.id)
    [id] = push(context, [delivery(context.webhook)])
    await_state(context, id, :held)
    assert HttpReceiver.count(context.receiver) == 0

    # A node that resumed the webhook, and died.
    {:ok, stored} = Store.get_webhook(context.instance, context.webhook.id)
    {:ok, _} = Store.update_webhook(context.instance, %{stored | enabled: true})
    send(Instance.process(context.name, :sweeper) |> GenServer.whereis(), :prune)
    await_state(context, id, :delivered)
  end
end
