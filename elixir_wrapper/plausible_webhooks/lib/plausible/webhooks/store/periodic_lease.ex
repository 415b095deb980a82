defmodule Plausible.Webhooks.Store.PeriodicLease do
  @moduledoc false
  # Periodic work. Of the nodes that share a store, one does it at a time.
  #
  # A node takes a lease with a name and gets a token, with which it renews the lease. A
  # node that comes back in time keeps its lease. When a node dies, its lease ends.
  #
  # Rejected: an advisory lock of the database. It belongs to a connection. The host's pool
  # would miss that connection as long as the work takes, and a pooler in front of the
  # database may give it to another client.

  alias Plausible.Webhooks.Runtime.Isolated
  alias Plausible.Webhooks.Store

  @type name :: String.t()

  @doc "Ends the lease, so that the next node that asks gets it."
  @spec give_back(Store.instance(), name(), Store.token() | nil) :: :ok
  def give_back(_instance, _name, nil), do: :ok

  def give_back(instance, name, token) do
    _ = Store.take_lease(instance, name, 1, token)
    # A lease of 1 ms has to pass before the next caller gets it.
    Process.sleep(2)
  end

  @doc """
  Takes the lease and runs `fun` in a task on behalf of `callers`. The lease is renewed while
  `fun` runs. When the lease is lost (the store or this node was away for
  too long) `fun` is killed, since another node may have begun.
  """
  @spec run(
          Store.instance(),
          name(),
          pos_integer(),
          Store.token() | nil,
          (() -> result),
          [pid()]
        ) :: {:ok, result, Store.token()} | {:error, :taken | :lease_lost | term()}
        when result: term()
  def run(instance, name, lease_ms, token, fun, callers) do
    # Taken before the store's lease begins, so that ours never ends after it.
    began = now_ms()

    with {:ok, token} <- Store.take_lease(instance, name, lease_ms, token) do
      task = Isolated.start(instance, fn -> {:done, fun.()} end, callers)

      lease = %{
        instance: instance,
        name: name,
        lease_ms: lease_ms,
        token: token,
        until: began + lease_ms
      }

      watch(lease, task)
    end
  end

  defp watch(lease, task) do
    case Task.yield(task, div(lease.lease_ms, 3)) do
      {:ok, {:done, result}} -> {:ok, result, lease.token}
      {:ok, {:error, reason}} -> given_back(lease, reason)
      {:exit, reason} -> given_back(lease, {:crashed, reason})
      nil -> lease |> renew() |> watch_on(lease, task)
    end
  end

  defp given_back(lease, reason) do
    give_back(lease.instance, lease.name, lease.token)
    {:error, reason}
  end

  defp watch_on({:ok, lease}, _before, task), do: watch(lease, task)

  defp watch_on({:error, reason}, lease, task) do
    if reason != :taken and now_ms() < lease.until do
      watch(lease, task)
    else
      _ = Task.shutdown(task, :brutal_kill)
      {:error, :lease_lost}
    end
  end

  # A store that hangs must not hide that the lease has ended.
  defp renew(lease) do
    began = now_ms()
    left_ms = max(lease.until - began, 1)
    take = fn -> Store.take_lease(lease.instance, lease.name, lease.lease_ms, lease.token) end

    with {:ok, token} <-
           Isolated.run(lease.instance, take, min(left_ms, div(lease.lease_ms, 3) + 1)),
         do: {:ok, %{lease | token: token, until: began + lease.lease_ms}}
  end

  defp now_ms, do: System.monotonic_time(:millisecond)
end
