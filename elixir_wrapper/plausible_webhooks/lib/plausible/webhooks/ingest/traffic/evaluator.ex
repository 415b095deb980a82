defmodule Plausible.Webhooks.Ingest.Traffic.Evaluator do
  @moduledoc """
  The process that evaluates the traffic every minute.

  Options of `start_link/1`: `:instance`, `:deliver` and the limits of
  `t:Plausible.Webhooks.Ingest.Traffic.Round.context/0`, and

    * `:tick_ms` - the pause between two evaluations, 60 000. `:infinity` leaves the evaluation
      to a scheduled job that calls `Plausible.Webhooks.Ingest.Traffic.evaluate/2`.
    * `:lease_ms` - how long a node that died keeps others from evaluating, 90 000. It is
      longer than `tick_ms`, so that the same node goes on.

  An evaluation that takes longer than `tick_ms` delays the next one; there are never two at a
  time. Sites that were evaluated the longest ago come first.

  Of several nodes that share a store, one evaluates at a time; otherwise two would report the
  same breach. An evaluation takes a lease (`Plausible.Webhooks.Store.take_lease/4`) and
  renews it while it runs. A node with a `tick_ms` keeps its lease until the next tick. When
  that node stops, another one takes over at once; when it dies, after `lease_ms`.
  """

  use GenServer

  alias Plausible.Webhooks.Ingest.Directory
  alias Plausible.Webhooks.Ingest.Traffic.Round
  alias Plausible.Webhooks.Runtime.Instance
  alias Plausible.Webhooks.Store.PeriodicLease

  require Logger

  @tick_ms 60_000
  @lease "traffic"
  @lease_ms 90_000

  @doc false
  def child_spec(opts) do
    %{id: {__MODULE__, Keyword.fetch!(opts, :instance)}, start: {__MODULE__, :start_link, [opts]}}
  end

  @doc "Starts the evaluator of an instance; see above for the options."
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(opts) do
    instance = Keyword.fetch!(opts, :instance)
    GenServer.start_link(__MODULE__, opts, name: server(instance))
  end

  @doc false
  @spec evaluate(atom(), integer()) ::
          {:ok, Round.summary()} | {:error, :not_running | :taken | term()}
  def evaluate(instance, now_ms) do
    GenServer.call(server(instance), {:evaluate, now_ms}, :infinity)
  catch
    :exit, _not_running -> {:error, :not_running}
  end

  defp server(instance), do: Instance.process(instance, :evaluator)

  @impl true
  def init(opts) do
    # To give the lease back at the stop.
    Process.flag(:trap_exit, true)
    {tick_ms, opts} = Keyword.pop(opts, :tick_ms, @tick_ms)
    {lease_ms, opts} = Keyword.pop(opts, :lease_ms, @lease_ms)
    schedule(tick_ms)
    state = %{context: Map.new(opts), tick_ms: tick_ms, lease_ms: lease_ms}
    {:ok, Map.merge(state, %{token: nil, round: 0, evaluated: %{}})}
  end

  # The caller may call another node the next time: the lease is given back, unless the
  # ticks keep it.
  @impl true
  def handle_call({:evaluate, now_ms}, {caller, _tag}, %{token: kept} = state) do
    {result, state} = round(state, now_ms, [caller])
    {:reply, result, if(kept, do: state, else: give_back(state))}
  end

  @impl true
  def handle_info(:tick, state) do
    {_result, state} = round(state, System.system_time(:millisecond), [])
    schedule(state.tick_ms)
    {:noreply, state}
  end

  def handle_info(_other, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state), do: give_back(state)

  defp give_back(state) do
    PeriodicLease.give_back(state.context.instance, @lease, state.token)
    %{state | token: nil}
  end

  defp schedule(:infinity), do: :ok
  defp schedule(tick_ms), do: Process.send_after(self(), :tick, tick_ms)

  # The longest ago first, so that every site is evaluated at some time, even if one round is
  # too short for all. Otherwise in a new order each time: a site that the host cannot count
  # must not fail the evaluation of the same other sites in every round.
  defp round(%{context: context, evaluated: evaluated} = state, now_ms, callers) do
    round = state.round + 1

    sites =
      context.instance
      |> Directory.traffic()
      |> Enum.shuffle()
      |> Enum.sort_by(fn {site_id, _webhooks} -> Map.get(evaluated, site_id, 0) end)

    evaluate = fn -> Round.evaluate(context, sites, now_ms, callers) end

    case PeriodicLease.run(
           context.instance,
           @lease,
           state.lease_ms,
           state.token,
           evaluate,
           callers
         ) do
      {:ok, summary, token} ->
        log(summary)

        {{:ok, summary},
         %{state | token: token, round: round, evaluated: done(state, sites, summary)}}

      {:error, reason} ->
        log_error(reason)
        # A store that was away may still hold our lease.
        token = if reason in [:taken, :lease_lost], do: nil, else: state.token
        {{:error, reason}, %{state | token: token}}
    end
  end

  defp done(%{evaluated: evaluated} = state, sites, summary) do
    round = state.round + 1
    behind = for {site_id, :no_time_left} <- summary.failed, into: MapSet.new(), do: site_id

    for {site_id, _webhooks} <- sites, into: %{} do
      {site_id, if(site_id in behind, do: Map.get(evaluated, site_id, 0), else: round)}
    end
  end

  # Another node evaluates.
  defp log_error(:taken), do: :ok

  defp log_error(reason) do
    Logger.warning(
      "webhooks: traffic was not evaluated: #{inspect(reason, limit: 5, printable_limit: 200)}"
    )
  end

  defp log(%{failed: []}), do: :ok

  defp log(%{failed: [{site_id, reason} | _] = failed} = summary) do
    Logger.warning(
      "webhooks: the traffic of #{length(failed)} of #{summary.sites} sites could not be " <>
        "evaluated, site #{site_id} for one: #{inspect(reason, limit: 5, printable_limit: 200)}"
    )
  end
end
