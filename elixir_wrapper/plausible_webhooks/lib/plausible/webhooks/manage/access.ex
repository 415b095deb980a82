defmodule Plausible.Webhooks.Manage.Access do
  @moduledoc false
  # Who may do what. Every call asks the host. A webhook or delivery of another site is not
  # found, whoever asks.

  alias Plausible.Webhooks.{Delivery, Host, Store, Webhook}
  alias Plausible.Webhooks.Runtime.Instance

  @spec check(Instance.t(), Host.actor(), Host.action(), integer()) :: :ok | {:error, :forbidden}
  def check(instance, actor, action, site_id) do
    site_id?(site_id) || raise ArgumentError, "a site's id must be a 64-bit integer"

    # Anything but true counts as no.
    if Instance.host(instance, :can?, [actor, action, site_id]) == true,
      do: :ok,
      else: {:error, :forbidden}
  end

  @int64 -9_223_372_036_854_775_808..9_223_372_036_854_775_807

  @doc "Whether it can be the id of a site."
  @spec site_id?(term()) :: boolean()
  def site_id?(site_id), do: is_integer(site_id) and site_id in @int64

  @spec webhook(Instance.t(), integer(), Webhook.id()) ::
          {:ok, Webhook.t()} | {:error, :not_found} | {:error, term()}
  def webhook(instance, site_id, id) do
    is_binary(id) || raise ArgumentError, "a webhook's id must be a string"
    instance |> Store.get_webhook(id) |> of_site(site_id)
  end

  @spec delivery(Instance.t(), integer(), String.t()) ::
          {:ok, Delivery.t()} | {:error, :not_found} | {:error, term()}
  def delivery(instance, site_id, id) do
    is_binary(id) || raise ArgumentError, "a delivery's id must be a string"
    instance |> Store.get_delivery(id) |> of_site(site_id)
  end

  defp of_site({:ok, %{site_id: site_id}} = found, site_id), do: found
  defp of_site({:ok, _of_another_site}, _site_id), do: {:error, :not_found}
  defp of_site({:error, _reason} = error, _site_id), do: error
end
