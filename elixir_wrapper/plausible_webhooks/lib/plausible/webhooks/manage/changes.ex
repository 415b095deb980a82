defmodule Plausible.Webhooks.Manage.Changes do
  @moduledoc false
  # The one way in which a webhook changes: first the store, then everyone who
  # keeps something of it (what waits, the engine, the other nodes, the directory,
  # the observers). When this returns, no event is matched and no request is sent
  # the old way by this node; the others have been told.

  alias Plausible.Webhooks.{Cluster, Store, Webhook}
  alias Plausible.Webhooks.Deliver.{Handover, Health}
  alias Plausible.Webhooks.Ingest.{Directory, Traffic}
  alias Plausible.Webhooks.Runtime.{Instance, Observers}

  @type kind :: :created | :updated | :deleted | :disabled | :enabled
  @tries 5
  @waiting_reason "webhook_disabled"

  @spec insert(Instance.t(), Webhook.t()) :: :ok | {:error, term()}
  def insert(instance, webhook) do
    with :ok <- Store.insert_webhook(instance, webhook) do
      announce(instance, webhook, :created)
    end
  end

  @doc """
  Applies `fun` to the stored webhook. `fun` is called again when somebody else
  was faster; it answers `{:ok, webhook}`, `:unchanged` or an error.
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
      case Store.update_webhook(instance, %{changed | updated_at_ms: Instance.now_ms()}) do
        {:ok, stored} ->
          after_update(instance, before, stored, kind)
          {:ok, stored}

        {:error, :stale} when tries > 1 ->
          update(instance, id, fun, kind, tries - 1)

        {:error, _reason} = error ->
          error
      end
    end
  end

  defp after_update(instance, before, stored, kind) do
    # Before the engine ends them: so the log says why. Whatever is missed here
    # (the store may be away again) ends when its turn comes.
    if Webhook.active?(before) and not Webhook.active?(stored),
      do: Store.cancel_waiting(instance, stored.id, @waiting_reason)

    if stored.failing_since_ms == nil, do: Health.forget(instance, stored.id)
    rearm(instance, before, stored)
    announce(instance, stored, kind)
  end

  # While a kind of traffic was not watched for this webhook, a breach may have ended
  # and another one begun: what is seen next is news. Where the store cannot be asked,
  # that is so after a while (`Plausible.Webhooks.Ingest.Traffic`).
  defp rearm(instance, before, stored) do
    newly = &(Traffic.watched?(stored, &1) and not Traffic.watched?(before, &1))

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
      Handover.deleted(instance, webhook.id)
      Cluster.tell(instance, {:webhook_changed, webhook.site_id, webhook.id})
      _ = Directory.refresh(instance.name, webhook.site_id)
      Observers.changed(instance, webhook.site_id, webhook.id, :deleted)
    end
  end

  @doc "The goals of a site have changed; the host has them already."
  @spec goals_changed(Instance.t(), integer()) :: :ok
  def goals_changed(instance, site_id) do
    Cluster.tell(instance, {:goals_changed, site_id})
    _ = Directory.changed(instance.name, site_id)
    :ok
  end

  # --- what another node has changed; the store, or the host, has it already

  @doc "An error: the store did not answer, call again."
  @spec changed_elsewhere(Instance.t(), integer(), Webhook.id()) :: :ok | {:error, term()}
  def changed_elsewhere(instance, site_id, id) do
    result =
      case Store.get_webhook(instance, id) do
        {:ok, %Webhook{site_id: ^site_id} = webhook} ->
          if webhook.failing_since_ms == nil, do: Health.forget(instance, id)
          Handover.changed(instance, webhook)

        {:ok, _of_another_site} ->
          :ok

        {:error, :not_found} ->
          Health.forget(instance, id)
          Handover.deleted(instance, id)

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

  @doc "Nobody knows what has changed. An error: the store did not answer, call again."
  @spec everything_elsewhere(Instance.t()) :: :ok | {:error, term()}
  def everything_elsewhere(instance) do
    case Directory.refresh_everything(instance.name) do
      # It goes on by itself; one that is not running reads everything at its start.
      {:error, reason} when reason in [:timeout, :not_running] -> :ok
      other -> other
    end
  end

  @doc "Compares what the engine knows with all webhooks, as the store has them."
  @spec compare(Instance.name(), [Webhook.t()]) :: :ok
  def compare(name, webhooks) do
    case Instance.get(name) do
      nil -> :ok
      instance -> Handover.compare(instance, webhooks)
    end
  end

  defp announce(instance, webhook, kind) do
    Handover.changed(instance, webhook)
    Cluster.tell(instance, {:webhook_changed, webhook.site_id, webhook.id})
    _ = Directory.refresh(instance.name, webhook.site_id)
    Observers.changed(instance, webhook.site_id, webhook.id, kind)
  end
end
