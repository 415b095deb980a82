defmodule Plausible.Webhooks.Manage.TestDelivery do
  @moduledoc false
  # The test button: sends one POST now, and returns its attempt.

  alias Plausible.Webhooks.{Delivery, Event, Host, Id}
  alias Plausible.Webhooks.Accept.Outbox
  alias Plausible.Webhooks.Deliver.{Endpoints, Owners, Recorder}
  alias Plausible.Webhooks.Ingest.Payload
  alias Plausible.Webhooks.Manage.{Access, Webhooks}
  alias Plausible.Webhooks.Runtime.{Instance, Isolated}

  @window_ms 60_000
  # The time for commit, waiting in the lane and recording, besides the attempt itself.
  @slack_ms 5_000
  # The time that the host has to return the facts of the body.
  @host_ms 10_000

  def send_test(instance, actor, site_id, webhook_id, type) do
    with :ok <- Access.check(instance, actor, :manage, site_id),
         :ok <- known(type),
         {:ok, webhook} <- Access.webhook(instance, site_id, webhook_id),
         {:ok, delivery} <- delivery(instance, webhook, type),
         {:ok, engine} <- engine(instance),
         # Last, so that what is refused for another reason does not count.
         :ok <- rate(instance, site_id),
         :ok <- Endpoints.put_for_test(instance, engine, webhook),
         {:ok, attempt} <- attempt(instance, delivery) do
      if attempt.state == :delivered and webhook.disabled_reason != nil,
        do: Webhooks.enable_disabled(instance, webhook.id)

      result(attempt)
    end
  end

  @doc "The webhook, and the body of what `send_test/5` of that type would send to it now."
  def sample(instance, actor, site_id, webhook_id, type) do
    with :ok <- Access.check(instance, actor, :manage, site_id),
         :ok <- known(type),
         {:ok, webhook} <- Access.webhook(instance, site_id, webhook_id),
         {:ok, _event, body} <- body(instance, webhook, type),
         do: {:ok, webhook, body}
  end

  # The delivery ended without a request: the webhook was deleted in the meantime.
  defp result(%{number: 0, detail: detail}), do: {:error, {:not_sent, detail}}
  defp result(attempt), do: {:ok, attempt}

  defp known(type) do
    if type in Event.types(),
      do: :ok,
      else: {:error, {:invalid, %{type: "must be one of #{Enum.join(Event.types(), ", ")}"}}}
  end

  defp engine(instance) do
    case Owners.engine(instance) do
      nil -> {:error, :unavailable}
      engine -> {:ok, engine}
    end
  end

  defp delivery(instance, webhook, type) do
    with {:ok, event, body} <- body(instance, webhook, type) do
      now_ms = event.occurred_at_ms

      {:ok,
       %Delivery{
         id: Id.delivery(now_ms),
         webhook_id: webhook.id,
         site_id: webhook.site_id,
         type: type,
         goal_id: event.goal_id,
         body: body,
         created_at_ms: now_ms,
         manual: true,
         retry: false
       }}
    end
  end

  defp body(instance, webhook, type),
    do: Isolated.run(instance, fn -> make_body(instance, webhook, type) end, @host_ms)

  defp make_body(instance, webhook, type) do
    now_ms = Instance.now_ms()

    with %{domain: domain} = facts <- Instance.host(instance, :site, [webhook.site_id]),
         tells = Host.tells(facts),
         site = %{
           id: webhook.site_id,
           domain: domain,
           dashboard_url: Instance.host(instance, :dashboard_url, [webhook.site_id])
         },
         goal = if(tells.events, do: goal(instance, webhook, type)),
         event = Payload.sample(type, site, goal, now_ms, tells),
         {:ok, body} <- Payload.encode(event) do
      {:ok, event, body}
    else
      nil -> {:error, :not_found}
      {:error, _reason} = error -> error
    end
  end

  # One of the site's own goals that the webhook wants.
  defp goal(instance, webhook, "goal.completed") do
    goals = Instance.host(instance, :goals, [webhook.site_id])
    Enum.find(goals, &(webhook.goals == :all or &1.id in webhook.goals))
  end

  defp goal(_instance, _webhook, _type), do: nil

  defp attempt(instance, delivery) do
    wait_ms = instance.options.timeout_ms + @slack_ms

    Recorder.await(instance, delivery.id, wait_ms, fn ->
      Outbox.accept(instance, [delivery], @slack_ms)
    end)
  end

  defp rate(%Instance{options: %{host: {module, _argument}} = options} = instance, site_id) do
    if function_exported?(module, :check_rate, 4),
      do: host_rate(instance, site_id, options.tests_per_minute),
      else: within_rate(instance, {:test, site_id}, options.tests_per_minute)
  end

  defp host_rate(instance, site_id, limit) do
    with {:error, retry_in_ms} <-
           Instance.host(instance, :check_rate, ["test:#{site_id}", @window_ms, limit]),
         do: {:error, {:rate_limited, retry_in_ms}}
  end

  @doc "Counts towards a limit per minute, whose window begins with the first count."
  def within_rate(%Instance{tables: %{rates: rates}}, key, limit) do
    now = System.monotonic_time(:millisecond)

    case :ets.lookup(rates, key) do
      [{^key, began, _count}] when now - began < @window_ms -> :ok
      _none_or_over -> :ets.insert(rates, {key, now, 0})
    end

    if :ets.update_counter(rates, key, {3, 1}) <= limit do
      :ok
    else
      [{^key, began, _count}] = :ets.lookup(rates, key)
      {:error, {:rate_limited, max(began + @window_ms - now, 1)}}
    end
  end
end
