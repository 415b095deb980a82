defmodule Plausible.Webhooks.Test.TestHost do
  @moduledoc false
  # A host whose answers a test sets. The actor `:owner` may do everything with
  # sites 1 and 2, `:viewer` may read site 1, `:other` may do everything with
  # site 2; nobody else may do anything. `put(host, {:role, :owner}, :viewer)` makes one
  # of them another. What the host is told goes to the test's process as
  # `{:host, ...}`.

  @behaviour Plausible.Webhooks.Host

  def new(pid \\ self()) do
    table = :ets.new(__MODULE__, [:public])

    :ets.insert(table, [
      {:pid, pid},
      {{:goals, 1}, [event_goal(12, "Signup")]},
      {{:goals, 2}, [event_goal(22, "Signup")]}
    ])

    table
  end

  def put(host, key, value), do: :ets.insert(host, {key, value})

  def event_goal(id, name) do
    %{
      id: id,
      name: name,
      event_name: name,
      page_path: nil,
      scroll_threshold: -1,
      custom_props: %{},
      currency: nil
    }
  end

  defp get(host, key, default) do
    case :ets.lookup(host, key) do
      [{_key, value}] -> if is_function(value, 0), do: value.(), else: value
      [] -> default
    end
  end

  defp tell(host, message) do
    send(:ets.lookup_element(host, :pid, 2), message)
    :ok
  end

  @impl true
  def site(host, id) when id in [1, 2] do
    get(host, {:site, id}, %{
      id: id,
      domain: "site#{id}.example",
      timezone: "Etc/UTC",
      stats_start_at_ms: nil
    })
  end

  def site(_host, _id), do: nil

  @impl true
  def site_by_domain(host, domain),
    do: Enum.find([site(host, 1), site(host, 2)], &(&1.domain == domain))

  @impl true
  def goals(host, site_id), do: get(host, {:goals, site_id}, [])

  @impl true
  def visitors(host, site_ids, windows) do
    with {:ok, counts} <- get(host, :visitors, {:ok, Enum.map(windows, fn _window -> 0 end)}),
         do: {:ok, Map.new(site_ids, &{&1, counts})}
  end

  @impl true
  def breakdown(_host, _site_id, _window, _limit), do: {:ok, %{sources: [], pages: []}}

  @impl true
  def alert_sites(host, site_ids),
    do: for(id <- site_ids, site = site(host, id), do: site)

  @impl true
  def dashboard_url(_host, site_id), do: "https://plausible.test/site#{site_id}.example"

  @impl true
  def can?(host, actor, action, site_id) do
    tell(host, {:host, :can?, actor, action, site_id})

    case {get(host, {:role, actor}, actor), action, site_id} do
      {:owner, _any, site_id} when site_id in [1, 2] -> true
      {:viewer, :read, 1} -> true
      {:other, _any, 2} -> true
      {:confused, _any, _site} -> :yes
      _nobody -> false
    end
  end

  @impl true
  def webhook_disabled(host, webhook, reason) do
    get(host, :webhook_disabled, :ok)
    tell(host, {:host, :webhook_disabled, webhook.id, reason})
  end

  @impl true
  def audit(host, actor, entry, webhook) do
    tell(host, {:host, :audit, actor, entry, webhook})
    get(host, :audit, :ok)
  end
end
