defmodule Plausible.Webhooks.Store.PeriodicLease do
  @moduledoc false
  # Periodic work that one node at a time does, of all that share a store.
  #
  # A turn is a lease with a name. Whoever has it gets a token for it, and with the
  # token it again: a node that comes back in time keeps its turn, the others do
  # without. When it dies, its turn ends with the lease.
  #
  # Rejected: an advisory lock of the database. It lives by a connection, which
  # would be out of the host's pool as long as the work takes, and which a pooler
  # between us and the database gives to somebody else.

  alias Plausible.Webhooks.{Source, Store}
  alias Plausible.Webhooks.Runtime.Isolated

  @type name :: String.t()

  @doc "Takes the turn, or renews it. `{:error, :taken}`: somebody else has it."
  @spec take(Source.t(), name(), pos_integer(), Store.token() | nil) ::
          {:ok, Store.token()} | {:error, :taken | term()}
  def take(store, name, lease_ms, token) do
    Isolated.guard(fn -> Source.call(store, :take_turn, [name, lease_ms, token]) end)
  end

  @doc "Ends the turn: the next one who asks gets it."
  @spec give_back(Source.t(), name(), Store.token() | nil) :: :ok
  def give_back(_store, _name, nil), do: :ok

  def give_back(store, name, token) do
    _ = take(store, name, 1, token)
    # A lease of 1 ms has to pass: who asks next, and be it the caller, gets it.
    Process.sleep(2)
  end

  @doc """
  Takes the turn and runs `fun`, in a process of its own on behalf of `callers`; the
  turn is renewed while it runs. When the turn is lost all the same (the store was
  away for too long, this node was), `fun` is killed: somebody else may have begun.
  """
  @spec run(Source.t(), name(), pos_integer(), Store.token() | nil, (() -> result), [pid()]) ::
          {:ok, result, Store.token()} | {:error, :taken | :turn_lost | term()}
        when result: term()
  def run(store, name, lease_ms, token, fun, callers) do
    # Before the store's lease begins: ours, by our clock, never ends after it.
    began = now_ms()

    with {:ok, token} <- take(store, name, lease_ms, token) do
      {pid, ref} = Isolated.start(fn -> {:done, fun.()} end, callers)

      turn = %{
        store: store,
        name: name,
        lease_ms: lease_ms,
        token: token,
        until: began + lease_ms
      }

      watch(turn, pid, ref)
    end
  end

  defp watch(turn, pid, ref) do
    receive do
      {:DOWN, ^ref, :process, _pid, reason} ->
        case Isolated.result(reason) do
          {:done, result} ->
            {:ok, result, turn.token}

          {:error, reason} ->
            give_back(turn.store, turn.name, turn.token)
            {:error, reason}
        end
    after
      div(turn.lease_ms, 3) -> turn |> renew() |> watch_on(turn, pid, ref)
    end
  end

  defp watch_on({:ok, turn}, _before, pid, ref), do: watch(turn, pid, ref)

  defp watch_on({:error, reason}, turn, pid, ref) do
    if reason != :taken and now_ms() < turn.until do
      watch(turn, pid, ref)
    else
      Process.demonitor(ref, [:flush])
      Process.exit(pid, :kill)
      {:error, :turn_lost}
    end
  end

  # A store that hangs must not keep us from noticing that the time is over.
  defp renew(turn) do
    began = now_ms()
    left_ms = max(turn.until - began, 1)
    take = fn -> take(turn.store, turn.name, turn.lease_ms, turn.token) end

    with {:ok, token} <- Isolated.run(take, min(left_ms, div(turn.lease_ms, 3) + 1)),
         do: {:ok, %{turn | token: token, until: began + turn.lease_ms}}
  end

  defp now_ms, do: System.monotonic_time(:millisecond)
end
