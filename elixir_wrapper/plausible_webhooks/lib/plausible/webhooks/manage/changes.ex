defmodule Plausible.Webhooks.Manage.Changes do
  @moduledoc false
  # Every change of a webhook goes through this module: first the store, then everything that
  # keeps a part of the webhook (waiting deliveries, the engine, the other nodes, the
  # directory, the observers). When a function here returns, this node uses the new webhook
  # for every event and request, and the other nodes have been told.

  alias Plausible.Webhooks.{Cluster, Store, Webhook}
  alias Plausible.Webhooks.Deliver.{Endpoints, Health}
  alias Plausible.Webhooks.Ingest.Directory
  alias Plausible.Webhooks.Ingest.Traffic.Rules
  alias Plausible.Webhooks.Runtime.{Instance, Isolated, Observers}

  require Logger

  @type kind :: :created | :updated | :deleted | :disabled | :enabled
  @tries 5
  @waiting_reason "webhook_disabled"
  @tell_owner_ms 10_000

  @spec insert(Instance.t(), Webhook.t()) :: :ok | {:error, term()}
  def insert(instance, webhook) do
    with :ok <- Store.insert_webhook(instance, webhook) do
      announce(instance, webhook, :created)
    end
  end

  @doc """
  Applies `fun` to the stored webhook, and again when somebody else was faster. `fun` answers
  `{:ok, webhook}`, `:unchanged` or an error.
  """
  @spec update(
          Instance.t(),
          Webhook.id(),
          (Webhook.t() -> {:ok, Webhook.t()} | :unchanged | {:error, term()}),
          kind()
        ) :: {:ok, Webhook.t()} | :unchanged | {:error, term()}
  def update(instance, id, fun, kind), do: update(instance, id, fun, kind, @tries)

  defp update(instance, id, fun, kind, tries) do
    with {:ok, before} <- Store.get_webhook(instance, id),
         {:ok, changed} <- fun.(before) do
      case Store.update_webhook(instance, touched(changed, kind)) do
        {:ok, stored} ->
          after_update(instance, before, stored, kind)
          {:ok, stored}

        # The store writes only over the version that was read, in one statement.
        {:error, :stale} when tries > 1 ->
          update(instance, id, fun, kind, tries - 1)

        {:error, _reason} = error ->
          error
      end
    end
  end

  # Pausing and resuming leave what is sent as it is: see `Webhook`.
  defp touched(webhook, :updated), do: %{webhook | updated_at_ms: Instance.now_ms()}
  defp touched(webhook, _enabled_or_disabled), do: webhook

  defp after_update(instance, before, stored, kind) do
    # Only deliveries that are in no engine. An engine, here or on another node, lets go of its
    # own when it learns of the change, because it may be sending them. If the store is away
    # now, the engine that takes such a delivery later ends or holds it.
    if Webhook.active?(before) and not Webhook.active?(stored) do
      if stored.enabled,
        do: Store.cancel_waiting(instance, stored.id, @waiting_reason),
        else: Store.hold_waiting(instance, stored.id)
    end

    if stored.failing_since_ms == nil, do: Health.forget(instance, stored.id)
    rearm(instance, before, stored)
    announce(instance, stored, kind)

    # Afterwards, so that what is sent now finds the endpoint. If the store is away now, the
    # Sweeper sends what is held later.
    if stored.enabled and not before.enabled do
      _ = Store.send_held(instance)
      Instance.tell(instance, :sweeper, :sweep)
    end
  end

  # While a kind of traffic was not watched for this webhook, a breach may have ended and
  # another one begun. So the next breach that is seen counts as new. If the store is away,
  # that happens after a while anyway (`Plausible.Webhooks.Ingest.Traffic`).
  defp rearm(instance, before, stored) do
    newly = &(Rules.watched?(stored, &1) and not Rules.watched?(before, &1))

    with [_ | _] = kinds <- Enum.filter([:spike, :drop], newly),
         {:ok, states} <- Store.alert_states(instance, [stored.id]) do
      for %{kind: kind, state: :firing} = state <- states,
          kind in kinds,
          do: Store.put_alert_state(instance, %{state | state: :armed})
    end
  end

  @spec delete(Instance.t(), Webhook.t()) :: :ok | {:error, term()}
  def delete(instance, webhook) do
    with :ok <- Store.delete_webhook(instance, webhook.site_id, webhook.id) do
      Health.forget(instance, webhook.id)
      Endpoints.deleted(instance, webhook.id)
      tell_nodes(instance, {:webhook_changed, webhook.site_id, webhook.id})
      _ = Directory.refresh(instance.name, webhook.site_id)
      Observers.changed(instance, webhook.site_id, webhook.id, :deleted)
    end
  end

  @doc """
  Disables a webhook on our own account. The host tells the webhook's owner. Waiting
  deliveries are cancelled and can be recovered, and further events are recorded as cancelled.
  """
  @spec disable(Instance.t(), Webhook.id(), Webhook.disabled_reason(), integer() | nil) ::
          :ok | {:error, term()}
  def disable(instance, id, reason, failing_for_ms) do
    changes = fn
      %Webhook{disabled_reason: nil} = webhook ->
        {:ok, %{webhook | disabled_reason: reason, disabled_at_ms: Instance.now_ms()}}

      %Webhook{} ->
        :unchanged
    end

    case update(instance, id, changes, :disabled) do
      {:ok, webhook} ->
        Health.forget(instance, id)
        tell_owner(instance, webhook)
        Observers.disabled(instance, webhook, failing_for_ms)

      result when result in [:unchanged, {:error, :not_found}] ->
        Health.forget(instance, id)

      {:error, _reason} = error ->
        error
    end
  end

  # The host may send mail, which takes time, and may fail.
  defp tell_owner(instance, webhook) do
    tell = fn ->
      Instance.host(instance, :webhook_disabled, [webhook, webhook.disabled_reason])
    end

    with {:error, reason} <- Isolated.run(instance, tell, @tell_owner_ms) do
      Logger.error(
        "webhooks: the host could not be told that #{webhook.id} was disabled: " <>
          inspect(reason, limit: 5, printable_limit: 200)
      )
    end
  end

  @doc "The goals of a site have changed; the host has them already. Never raises."
  @spec goals_changed(Instance.name(), integer()) :: :ok
  def goals_changed(name, site_id) when is_integer(site_id) do
    with %Instance{} = instance <- Instance.get(name) do
      tell_nodes(instance, {:goals_changed, site_id})
      _ = Directory.changed(name, site_id)
    end

    :ok
  end

  def goals_changed(_name, _not_a_site), do: :ok

  # --- what another node has changed; the store, or the host, has it already

  @doc "After an error the store did not answer, and the call is to be repeated."
  @spec changed_elsewhere(Instance.t(), integer(), Webhook.id()) :: :ok | {:error, term()}
  def changed_elsewhere(instance, site_id, id) do
    result =
      case Store.get_webhook(instance, id) do
        {:ok, %Webhook{site_id: ^site_id} = webhook} ->
          if webhook.failing_since_ms == nil, do: Health.forget(instance, id)
          Endpoints.changed(instance, webhook)

        {:ok, _of_another_site} ->
          :ok

        {:error, :not_found} ->
          Health.forget(instance, id)
          Endpoints.deleted(instance, id)

        {:error, _reason} = error ->
          error
      end

    _ = Directory.refresh(instance.name, site_id)
    result
  end

  @spec goals_changed_elsewhere(Instance.t(), integer()) :: :ok
  def goals_changed_elsewhere(instance, site_id) do
    _ = Directory.changed(instance.name, site_id)
    :ok
  end

  @doc "Reads everything, since it is not known what has changed. Errors as above."
  @spec everything_elsewhere(Instance.t()) :: :ok | {:error, term()}
  def everything_elsewhere(instance) do
    case Directory.refresh_everything(instance.name) do
      # The directory goes on by itself, and reads everything at its start.
      {:error, reason} when reason in [:timeout, :not_running] -> :ok
      other -> other
    end
  end

  @doc "Compares what the engine knows with all webhooks, as the store has them."
  @spec compare(Instance.name(), [Webhook.t()]) :: :ok
  def compare(name, webhooks) do
    case Instance.get(name) do
      nil -> :ok
      instance -> Endpoints.compare(instance, webhooks)
    end
  end

  defp announce(instance, webhook, kind) do
    Endpoints.changed(instance, webhook)
    tell_nodes(instance, {:webhook_changed, webhook.site_id, webhook.id})
    _ = Directory.refresh(instance.name, webhook.site_id)
    Observers.changed(instance, webhook.site_id, webhook.id, kind)
  end

  # The change has been made: that other nodes could not be told is no reason to fail.
  @spec tell_nodes(Instance.t(), Cluster.message()) :: :ok
  defp tell_nodes(%Instance{options: %{cluster: nil}}, _message), do: :ok

  defp tell_nodes(
         %Instance{name: name, options: %{cluster: {module, options}}} = instance,
         message
       ) do
    case Isolated.guard(fn -> module.tell(name, options, message) end) do
      :ok -> :ok
      {:error, reason} -> Observers.cluster_failed(instance, reason)
      other -> Observers.cluster_failed(instance, other)
    end
  end
end
