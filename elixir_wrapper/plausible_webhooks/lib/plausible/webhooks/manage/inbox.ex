defmodule Plausible.Webhooks.Manage.Inbox do
  @moduledoc false
  # Takes over the changes of other nodes.
  #
  # The listeners must not wait for the store, and a node that changes a thousand webhooks
  # must not start a thousand processes here. So each message is noted once, and one job at a
  # time handles the noted messages. Too many different ones count as "everything has changed".
  #
  # When the store does not answer, the change is tried again. The directory tries again by
  # itself, and reads everything when it starts.

  use GenServer

  alias Plausible.Webhooks.Manage.Changes
  alias Plausible.Webhooks.Runtime.{Instance, Isolated}

  require Logger

  @noted_max 1_000
  @concurrency 4
  # Longer than the directory lets anyone wait.
  @change_ms 65_000
  @job_ms 600_000
  @backoff_ms {1_000, 30_000}

  @doc false
  def start_link(name),
    do: GenServer.start_link(__MODULE__, name, name: Instance.process(name, :inbox))

  # noted: the messages to be worked off; all?: everything is to be read; job: the task at
  # work and its messages; timer: of the pause after a failure.
  @impl true
  def init(name),
    do: {:ok, %{name: name, noted: MapSet.new(), all?: false, job: nil, timer: nil, failures: 0}}

  @impl true
  def handle_info({:received, message}, state), do: {:noreply, state |> note(message) |> work()}
  def handle_info(:missed, state), do: {:noreply, work(%{state | all?: true})}
  def handle_info(:retry, state), do: {:noreply, work(%{state | timer: nil})}

  def handle_info({ref, results}, %{job: {ref, taken}} = state) do
    Process.demonitor(ref, [:flush])
    {:noreply, done(state, failed(results, taken))}
  end

  def handle_info({:DOWN, ref, :process, _pid, _reason}, %{job: {ref, taken}} = state),
    do: {:noreply, done(state, taken)}

  def handle_info(_other, state), do: {:noreply, state}

  defp note(state, :all), do: %{state | all?: true}
  defp note(%{all?: true} = state, _message), do: state

  defp note(state, {what, site_id} = message) when what == :goals_changed and is_integer(site_id),
    do: add(state, message)

  defp note(state, {:webhook_changed, site_id, id} = message)
       when is_integer(site_id) and is_binary(id),
       do: add(state, message)

  # A newer version on another node may have more to say.
  defp note(state, _unknown), do: state

  defp add(%{noted: noted} = state, message) do
    if MapSet.size(noted) < @noted_max,
      do: %{state | noted: MapSet.put(noted, message)},
      else: %{state | noted: MapSet.new(), all?: true}
  end

  defp work(%{job: nil, timer: nil} = state) do
    case taken(state) do
      [] ->
        state

      taken ->
        name = state.name
        task = Isolated.start(name, fn -> take_over(Instance.fetch!(name), taken) end, [])
        %{state | job: {task.ref, taken}, noted: MapSet.new(), all?: false}
    end
  end

  defp work(state), do: state

  defp taken(%{all?: true}), do: [:all]
  defp taken(%{noted: noted}), do: MapSet.to_list(noted)

  defp take_over(instance, taken) do
    Isolated.map(instance, taken, &change(instance, &1),
      concurrency: @concurrency,
      timeout_ms: @change_ms,
      deadline_ms: System.monotonic_time(:millisecond) + @job_ms
    )
  end

  defp change(instance, :all), do: Changes.everything_elsewhere(instance)
  defp change(instance, {:goals_changed, id}), do: Changes.goals_changed_elsewhere(instance, id)

  defp change(instance, {:webhook_changed, site_id, id}),
    do: Changes.changed_elsewhere(instance, site_id, id)

  defp done(state, []), do: work(%{state | job: nil, failures: 0})

  defp done(state, failed),
    do: failed |> Enum.reduce(%{state | job: nil}, &note(&2, &1)) |> later()

  defp failed(results, _taken) when is_list(results),
    do: for({message, result} <- results, result != :ok, do: message)

  defp failed({:error, _crashed}, taken), do: taken

  defp later(%{failures: failures} = state) do
    {first, longest} = @backoff_ms
    pause_ms = min(first * Integer.pow(2, min(failures, 10)), longest)

    if failures == 0 do
      Logger.warning("webhooks: a change by another node could not be read; trying again")
    end

    %{state | timer: Process.send_after(self(), :retry, pause_ms), failures: failures + 1}
  end
end
