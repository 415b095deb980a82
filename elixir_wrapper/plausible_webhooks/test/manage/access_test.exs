defmodule Plausible.Webhooks.Manage.AccessTest do
  use Plausible.Webhooks.Test.InstanceCase, async: true

  alias Plausible.Webhooks, as: API

  @moduletag :capture_log

  describe "permissions" do
    setup context do
      context = start!(context)
      webhook = webhook!(context, "/hook?token=tok", %{headers: %{"x-key" => "key"}})
      delivery = delivery(webhook)
      :ok = Outbox.accept(context.instance, [delivery])
      await_state(context, delivery.id, :delivered)
      Map.merge(context, %{webhook: webhook, delivery: delivery})
    end

    # {name without arity, permission, call}
    defp calls(%{name: name, webhook: %{id: id}, delivery: delivery}) do
      attributes = %{url: "http://127.0.0.1:8000/", events: ["goal.completed"]}

      [
        {:read, &API.list_webhooks(name, &1, &2)},
        {:read, &API.get_webhook(name, &1, &2, id)},
        {:read, &API.deliveries(name, &1, &2, %{}, %{})},
        {:read, &API.delivery(name, &1, &2, delivery.id)},
        {:read, &API.attempts(name, &1, &2, delivery.id)},
        {:read, &API.activity(name, &1, &2)},
        {:read, &API.site(name, &1, &2)},
        {:read, &API.goals(name, &1, &2)},
        {:read, &API.figures(name, &1, &2)},
        {:manage, &API.waiting(name, &1, &2, id)},
        {:manage, &API.recoverable(name, &1, &2, id, 0)},
        {:manage, &API.request(name, &1, &2, delivery.id)},
        {:manage, &API.sample(name, &1, &2, id, "webhook.test")},
        {:manage, &API.create_webhook(name, &1, &2, attributes)},
        {:manage, &API.update_webhook(name, &1, &2, id, %{name: "x"})},
        {:manage, &API.enable_webhook(name, &1, &2, id)},
        {:manage, &API.disable_webhook(name, &1, &2, id)},
        {:manage, &API.cancel_held(name, &1, &2, id)},
        {:manage, &API.reveal_secret(name, &1, &2, id)},
        {:manage, &API.rotate_secret(name, &1, &2, id, 0)},
        {:manage, &API.send_test(name, &1, &2, id, "webhook.test")},
        {:manage, &API.redeliver(name, &1, &2, delivery.id)},
        {:manage, &API.recover(name, &1, &2, id, 0)},
        {:manage, &API.delete_webhook(name, &1, &2, id)}
      ]
    end

    test "are asked on every call", context do
      before = {all_deliveries(context), list_webhooks(context)}

      for {action, call} <- calls(context) do
        flush()
        assert {:error, %Error{reason: :forbidden}} = call.(:nobody, 1)
        assert_received {:host, :can?, :nobody, ^action, 1}
        assert {:error, %Error{reason: :forbidden}} = call.(nil, 1)
        # What is not exactly true is no.
        assert {:error, %Error{reason: :forbidden}} = call.(:confused, 1)
        # A right for another site is none for this one.
        assert {:error, %Error{reason: :forbidden}} = call.(:other, 1)
        if action == :manage, do: assert({:error, %Error{reason: :forbidden}} = call.(:viewer, 1))
        if action == :read, do: assert({:ok, _} = call.(:viewer, 1))
      end

      assert before == {all_deliveries(context), list_webhooks(context)}
      assert HttpReceiver.count(context.receiver) == 1
    end

    test "for one site do not reach into another", context do
      for {_action, call} <- calls(context) do
        case call.(:other, 2) do
          {:ok, %{entries: entries}} -> assert entries == []
          {:ok, %Webhook{} = created} -> assert created.site_id == 2
          {:ok, [%Webhook{} | _] = webhooks} -> assert Enum.all?(webhooks, &(&1.site_id == 2))
          # Of the site itself, not of its webhooks.
          {:ok, %{domain: domain}} -> assert domain == "site2.example"
          {:ok, [%{name: "Signup"} = goal]} -> assert goal.id == 22
          {:ok, %{spike: %{visitors: visitors}}} -> assert visitors == 0
          {:ok, nothing} when nothing in [[], %{}] -> :ok
          other -> assert other == {:error, %Error{reason: :not_found}}
        end
      end

      assert {:ok, [_]} = list_webhooks(context)
      assert HttpReceiver.count(context.receiver) == 1
    end

    test "to read show no secrets: neither keys nor what URL and headers hold", context do
      {:ok, [read]} = API.list_webhooks(context.name, :viewer, 1)
      {:ok, ^read} = API.get_webhook(context.name, :viewer, 1, context.webhook.id)
      assert [%{key: nil, created_at_ms: _}] = read.secrets
      assert read.url == "http://127.0.0.1/…"
      assert read.headers == [{"x-key", "…"}]

      {:ok, managed} = get_webhook(context, context.webhook.id)
      assert [%{key: nil}] = managed.secrets
      assert managed.url =~ "token=tok"
      assert managed.headers == [{"x-key", "key"}]
    end

    test "a secret is returned after the audit log was written", context do
      flush()
      {:ok, [%{key: "whsec_" <> _}]} = reveal_secret(context, context.webhook.id)
      assert_received {:host, :audit, :owner, :webhook_secret_revealed, audited}
      assert [%{key: nil}] = audited.secrets

      TestHost.put(context.host, :audit, fn -> raise "the audit log is away" end)

      assert_raise RuntimeError, fn ->
        reveal_secret(context, context.webhook.id)
      end

      # A change that has happened is not taken back by that.
      assert {:ok, %{name: "new"}} = update_webhook(context, context.webhook.id, %{name: "new"})
    end

    defp flush do
      receive do
        _ -> flush()
      after
        0 -> :ok
      end
    end
  end
end
