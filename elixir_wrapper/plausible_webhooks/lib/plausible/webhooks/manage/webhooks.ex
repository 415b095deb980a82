defmodule Plausible.Webhooks.Manage.Webhooks do
  @moduledoc false
  # Webhooks as their owners see and change them. `Plausible.Webhooks` documents the functions.

  alias Plausible.Webhooks.{Store, Webhook}
  alias Plausible.Webhooks.Manage.{Access, Changes}
  alias Plausible.Webhooks.Runtime.Instance

  @audit_max 100
  @rekey_slice 100
  @hidden "…"

  def list(instance, actor, site_id) do
    with :ok <- Access.check(instance, actor, :read, site_id),
         {:ok, webhooks} <- Store.list_webhooks(instance, site_id) do
      manages? = Access.check(instance, actor, :manage, site_id) == :ok
      {:ok, Enum.map(webhooks, &shown(&1, manages?))}
    end
  end

  def get(instance, actor, site_id, id) do
    with :ok <- Access.check(instance, actor, :read, site_id),
         {:ok, webhook} <- Access.webhook(instance, site_id, id) do
      {:ok, shown(webhook, Access.check(instance, actor, :manage, site_id) == :ok)}
    end
  end

  def create(instance, actor, site_id, attributes) do
    with :ok <- Access.check(instance, actor, :manage, site_id),
         :ok <- site_exists(instance, site_id),
         {:ok, webhook} <- valid(Webhook.new(site_id, attributes, policy(instance))),
         :ok <- room(instance, site_id),
         :ok <- Changes.insert(instance, webhook) do
      # The store has set the version.
      created = reread(instance, webhook)
      audit(instance, actor, :webhook_created, created)
      {:ok, shown(created, true)}
    end
  end

  def update(instance, actor, site_id, id, attributes) do
    change(instance, actor, site_id, id, :updated, :webhook_updated, fn before ->
      with {:ok, webhook} <- valid(Webhook.change(before, attributes, policy(instance))) do
        # Another URL is another receiver: the failures of the old one do not count.
        if webhook.url == before.url, do: {:ok, webhook}, else: {:ok, without_failures(webhook)}
      end
    end)
  end

  def delete(instance, actor, site_id, id) do
    with :ok <- Access.check(instance, actor, :manage, site_id),
         {:ok, webhook} <- Access.webhook(instance, site_id, id),
         :ok <- Changes.delete(instance, webhook) do
      audit(instance, actor, :webhook_deleted, webhook)
    end
  end

  def enable(instance, actor, site_id, id) do
    change(instance, actor, site_id, id, :enabled, :webhook_enabled, fn webhook ->
      {:ok, without_failures(%{webhook | enabled: true})}
    end)
  end

  def disable(instance, actor, site_id, id) do
    change(instance, actor, site_id, id, :disabled, :webhook_disabled, fn webhook ->
      {:ok, %{webhook | enabled: false}}
    end)
  end

  def cancel_held(instance, actor, site_id, id) do
    with :ok <- Access.check(instance, actor, :manage, site_id),
         {:ok, %Webhook{enabled: false} = webhook} <- Access.webhook(instance, site_id, id),
         {:ok, count} <- Store.cancel_waiting(instance, id, "cancelled_by_owner") do
      audit(instance, actor, :webhook_held_cancelled, webhook)
      {:ok, count}
    else
      # Nothing is held: what waits has a next attempt.
      {:ok, %Webhook{enabled: true}} -> {:ok, 0}
      {:error, _reason} = error -> error
    end
  end

  @doc "Enables a webhook that we had disabled and a test has found working."
  def enable_disabled(instance, id) do
    Changes.update(
      instance,
      id,
      fn
        %Webhook{disabled_reason: nil} -> :unchanged
        webhook -> {:ok, without_failures(webhook)}
      end,
      :enabled
    )
  end

  # Written to both audit logs before the secrets are handed out, not after.
  def reveal_secret(instance, actor, site_id, id) do
    with :ok <- Access.check(instance, actor, :manage, site_id),
         {:ok, webhook} <- Access.webhook(instance, site_id, id),
         :ok <- reveal(instance, actor, :webhook_secret_revealed, webhook),
         do: {:ok, Webhook.live_keys(webhook, Instance.now_ms())}
  end

  @doc "Writes a look at secrets or tokens to both audit logs."
  def reveal(instance, actor, entry, webhook) do
    with :ok <- note(instance, actor, entry, webhook) do
      _ = Instance.host(instance, :audit, [actor, entry, redacted(webhook)])
      :ok
    end
  end

  def audit_log(instance, actor, site_id, id) do
    with :ok <- Access.check(instance, actor, :manage, site_id),
         do: Store.audit(instance, site_id, id, @audit_max)
  end

  @doc "Encrypts every webhook with the vault's first key; calls `progress` after each step."
  def rekey(instance, progress, rewritten \\ 0) do
    with {:ok, %{rewritten: more, left: left}} <- Store.rekey(instance, @rekey_slice) do
      step = %{rewritten: rewritten + more, left: left}
      progress.(step)
      # Only webhooks are left that other nodes keep encrypting with an older key.
      if left == 0 or more == 0, do: {:ok, step}, else: rekey(instance, progress, step.rewritten)
    end
  end

  def rotate_secret(instance, actor, site_id, id, overlap_ms) do
    change(instance, actor, site_id, id, :updated, :webhook_secret_rotated, fn webhook ->
      Webhook.rotate_secret(webhook, overlap_ms, Instance.now_ms())
    end)
  end

  # --- helpers

  defp change(instance, actor, site_id, id, kind, entry, fun) do
    with :ok <- Access.check(instance, actor, :manage, site_id),
         {:ok, _webhook} <- Access.webhook(instance, site_id, id),
         {:ok, changed} <- Changes.update(instance, id, fun, kind) do
      audit(instance, actor, entry, changed)
      {:ok, shown(changed, true)}
    end
  end

  defp policy(instance), do: [policy: instance.options.policy]

  defp valid({:ok, webhook}), do: {:ok, webhook}
  defp valid({:error, :stale}), do: {:error, :stale}
  defp valid({:error, errors}), do: {:error, {:invalid, errors}}

  defp site_exists(instance, site_id) do
    if Instance.host(instance, :site, [site_id]), do: :ok, else: {:error, :not_found}
  end

  # The store decides when two are created at the same time. This check is for an operator who
  # has lowered the limit.
  defp room(instance, site_id) do
    with {:ok, webhooks} <- Store.list_webhooks(instance, site_id) do
      if length(webhooks) < instance.options.webhooks_per_site_max,
        do: :ok,
        else: {:error, :limit_reached}
    end
  end

  defp reread(instance, webhook) do
    case Store.get_webhook(instance, webhook.id) do
      {:ok, stored} -> stored
      {:error, _reason} -> webhook
    end
  end

  defp without_failures(webhook),
    do: %{webhook | disabled_reason: nil, disabled_at_ms: nil, failing_since_ms: nil}

  # The change has been made: an audit log that fails is no reason to tell the user otherwise.
  @doc false
  def audit(instance, actor, entry, webhook) do
    with {:error, reason} <- note(instance, actor, entry, webhook),
         do: raise("the store: #{inspect(reason)}")

    _ = Instance.host(instance, :audit, [actor, entry, redacted(webhook)])
    :ok
  rescue
    error ->
      require Logger
      Logger.error("webhooks: no audit entry for #{entry}: #{inspect(error.__struct__)}")
      :ok
  end

  defp note(instance, actor, action, webhook) do
    Store.add_audit(instance, %{
      site_id: webhook.site_id,
      webhook_id: webhook.id,
      actor: name(instance, actor),
      action: Atom.to_string(action),
      at_ms: Instance.now_ms()
    })
  end

  # The actor is the host's: a struct of it may hold anything.
  defp name(%Instance{options: %{host: {module, _argument}}} = instance, actor) do
    cond do
      function_exported?(module, :actor_name, 2) -> Instance.host(instance, :actor_name, [actor])
      is_atom(actor) or is_binary(actor) or is_integer(actor) -> to_string(actor)
      true -> "unknown"
    end
  end

  # Only reveal_secret hands out secrets. An actor who may only read sees no URL paths and no
  # header values either, since both may hold tokens.
  defp shown(webhook, true), do: redacted(webhook)

  defp shown(webhook, false) do
    %{
      redacted(webhook)
      | url: masked(webhook.url),
        headers: hidden(webhook.headers)
    }
  end

  @doc "The headers without their values, which may hold tokens."
  def hidden(headers), do: Enum.map(headers, fn {name, _value} -> {name, @hidden} end)

  defp redacted(webhook),
    do: %{webhook | secrets: Enum.map(webhook.secrets, &%{&1 | key: nil})}

  defp masked(url) do
    uri = URI.parse(url)
    "#{uri.scheme}://#{uri.host}/#{@hidden}"
  end
end
