defmodule Plausible.Webhooks.Traffic.Evaluator do
  @moduledoc """
  The process that looks at the traffic every minute.

  Options of `start_link/1`: `:instance`, `:store`, `:host`, `:deliver` and the
  limits of `t:Plausible.Webhooks.Traffic.context/0`, and

    * `:tick_ms` - the pause between two evaluations, 60 000; `:infinity` leaves it
      to who calls `Plausible.Webhooks.Traffic.evaluate/2` (a scheduled job).

  An evaluation that takes longer delays the next one; there are never two at a
  time. What was evaluated the longest ago comes first. Only one
  node should evaluate: two would both tell of the same breach.
  """

  use GenServer

  alias Plausible.Webhooks.{Directory, Traffic}

  require Logger

  @tick_ms 60_000

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
  @spec evaluate(atom(), integer()) :: {:ok, Traffic.summary()} | {:error, :not_running}
  def evaluate(instance, now_ms) do
    GenServer.call(server(instance), {:evaluate, now_ms}, :infinity)
  catch
    :exit, _not_running -> {:error, :not_running}
  end

  defp server(instance), do: Module.concat(instance, "Traffic")

  @impl true
  def init(opts) do
    {tick_ms, opts} = Keyword.pop(opts, :tick_ms, @tick_ms)
    schedule(tick_ms)
    {:ok, %{context: Map.new(opts), tick_ms: tick_ms, round: 0, evaluated: %{}}}
  end

  @impl true
  def handle_call({:evaluate, now_ms}, {caller, _tag}, state) do
    {summary, state} = round(state, now_ms, [caller])
    {:reply, {:ok, summary}, state}
  end

  @impl true
  def handle_info(:tick, state) do
    {_summary, state} = round(state, System.system_time(:millisecond), [])
    schedule(state.tick_ms)
    {:noreply, state}
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp schedule(:infinity), do: :ok
  defp schedule(tick_ms), do: Process.send_after(self(), :tick, tick_ms)

  # The longest ago first: if the time is ever too short for all of them, it is
  # short for each in turn.
  defp round(%{context: context, evaluated: evaluated} = state, now_ms, callers) do
    round = state.round + 1

    sites =
      context.instance
      |> Directory.traffic()
      |> Enum.sort_by(fn {site_id, _webhooks} -> Map.get(evaluated, site_id, 0) end)

    summary = Traffic.evaluate_sites(context, sites, now_ms, callers)
    log(summary)
    behind = for {site_id, :no_time_left} <- summary.failed, into: MapSet.new(), do: site_id

    evaluated =
      for {site_id, _webhooks} <- sites, into: %{} do
        {site_id, if(site_id in behind, do: Map.get(evaluated, site_id, 0), else: round)}
      end

    {summary, %{state | round: round, evaluated: evaluated}}
  end

  defp log(%{failed: []}), do: :ok

  defp log(%{failed: [{site_id, reason} | _] = failed} = summary) do
    Logger.warning(
      "webhooks: the traffic of #{length(failed)} of #{summary.sites} sites could not be " <>
        "evaluated, site #{site_id} for one: #{inspect(reason, limit: 5, printable_limit: 200)}"
    )
  end
end
