defmodule MyApp.Webhooks do
  @moduledoc false
  # Calls webhooks as the documentation of Plausible.Webhooks says. tools/check-types lets
  # dialyzer read it: a pattern of ours that "can never match" would be its author's problem.

  alias Plausible.Webhooks

  def start do
    children = [
      {Webhooks,
       store: {Webhooks.Store.SQLite, path: "/var/lib/app/webhooks.db"},
       host: {Demo.Host, Demo.Host},
       vault: {:file, "/var/lib/app/webhooks.key"}}
    ]

    Supervisor.start_link(children, strategy: :one_for_one)
  end

  def hooks(buffered, site, stats, goal) do
    :ok = Webhooks.events_buffered(buffered)
    :ok = Webhooks.goals_changed(goal.site_id)
    :ok = Webhooks.webhook_changed(site.id, "wh_1")

    :ok =
      Webhooks.traffic_change(:spike, site, %{
        current_visitors: 512,
        threshold: 300,
        sources: stats.sources,
        pages: stats.pages,
        at: NaiveDateTime.utc_now()
      })
  end

  def manage(user, site) do
    {:ok, webhook} =
      Webhooks.create_webhook(user, site.id, %{
        url: "https://example.com/hook",
        events: ["goal.completed"]
      })

    {:ok, attempt} = Webhooks.send_test(user, site.id, webhook.id, "webhook.test")
    200 = attempt.status
    {:ok, [%{id: id}]} = Webhooks.list_webhooks(user, site.id)
    {:ok, ^webhook} = Webhooks.get_webhook(user, site.id, id)
    {:ok, webhook} = Webhooks.update_webhook(user, site.id, id, %{name: "CRM"})
    {:ok, %{enabled: false}} = Webhooks.disable_webhook(user, site.id, webhook.id)
    {:ok, %{enabled: true}} = Webhooks.enable_webhook(user, site.id, webhook.id)
    {:ok, [%{key: "whsec_" <> _rest}]} = Webhooks.reveal_secret(user, site.id, webhook.id)
    {:ok, _webhook} = Webhooks.rotate_secret(user, site.id, webhook.id, :timer.hours(24))
    :ok = Webhooks.delete_webhook(user, site.id, webhook.id)
  end

  def log(user, site, webhook) do
    {:ok, %{entries: [%{id: id, state: :failed} | _], next: next}} =
      Webhooks.deliveries(user, site.id, %{states: [:failed]}, %{limit: 50})

    {:ok, _page} = Webhooks.deliveries(user, site.id, %{}, %{after: next})
    {:ok, %{body: body}} = Webhooks.delivery(user, site.id, id)
    {:ok, [%{status: 500, error: :http_status}]} = Webhooks.attempts(user, site.id, id)
    :ok = Webhooks.redeliver(user, site.id, id)
    {:ok, %{count: count}} = Webhooks.recover(user, site.id, webhook.id, DateTime.utc_now())
    {body, count}
  end

  def operate do
    {:ok, %{pending: pending, parked: _parked, overdue_ms: _ms}} = Webhooks.queue()
    %{dropped: dropped} = Webhooks.stats()
    :ok = Webhooks.sweep()
    {:ok, pruned} = Webhooks.prune()
    {pending, dropped, pruned}
  end

  def explain(user, site) do
    case Webhooks.create_webhook(user, site.id, %{}) do
      {:ok, webhook} -> webhook.id
      {:error, %Webhooks.Error{reason: {:invalid, %{url: text}}}} -> text
      {:error, error} -> Exception.message(error)
    end
  end
end
