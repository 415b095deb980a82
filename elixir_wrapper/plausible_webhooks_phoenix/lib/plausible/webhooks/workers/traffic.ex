if Code.ensure_loaded?(Oban.Worker) do
  defmodule Plausible.Webhooks.Workers.Traffic do
    @moduledoc """
    Evaluates the traffic, each minute: `Plausible.Webhooks.Ingest.Traffic.evaluate/2`.

        {"* * * * *", Plausible.Webhooks.Workers.Traffic}

    Succeeds with what the evaluation did, or with `:taken` when another node is at it
    or has just been. Sites whose traffic could not be had are no failure of the job;
    they are logged and evaluated with the next one.
    """

    # A job that a dead node has left counts as executing for as long as Oban does
    # not know better. It must not keep the next minute's from being inserted.
    @incomplete if Code.ensure_loaded?(Oban.Job) and
                     function_exported?(Oban.Job, :unique_states, 1),
                   do: :incomplete,
                   else: [:available, :scheduled, :executing, :retryable]

    use Oban.Worker,
      queue: :webhooks,
      max_attempts: 3,
      unique: [period: 50, states: @incomplete]

    alias Plausible.Webhooks.Workers
    alias Plausible.Webhooks.Ingest.Traffic
    alias Plausible.Webhooks.Store
    alias Plausible.Webhooks.Store.PeriodicLease

    @lease "traffic job"
    # Jobs that were held up come all at once.
    @pause_ms 30_000

    @impl Oban.Worker
    def perform(job), do: Workers.run(job, &evaluate/1)

    @impl Oban.Worker
    def backoff(_job), do: 10

    # Longer than a round may take.
    @impl Oban.Worker
    def timeout(_job), do: :timer.seconds(330)

    defp evaluate(name) do
      case Store.take_lease(name, @lease, @pause_ms, nil) do
        {:ok, token} -> name |> evaluate_now() |> give_back(name, token)
        {:error, :taken} -> {:ok, :taken}
        {:error, :stopped} -> {:error, :not_running}
        {:error, _reason} = error -> error
      end
    end

    defp evaluate_now(name) do
      with {:error, :taken} <- Traffic.evaluate(name, System.system_time(:millisecond)),
           do: {:ok, :taken}
    end

    # Nothing was done: the next attempt may begin at once.
    defp give_back({:error, _reason} = error, name, token) do
      PeriodicLease.give_back(name, @lease, token)
      error
    end

    defp give_back(result, _name, _token), do: result
  end
end
