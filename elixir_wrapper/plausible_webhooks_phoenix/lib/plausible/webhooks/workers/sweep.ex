if Code.ensure_loaded?(Oban.Worker) do
  defmodule Plausible.Webhooks.Workers.Sweep do
    @moduledoc """
    Looks after the queue, each minute: brings back what is due where it runs
    (`Plausible.Webhooks.sweep/1`), and tells how the queue stands over all nodes
    (`Plausible.Webhooks.Telemetry.queue/1`).

        {"* * * * *", Plausible.Webhooks.Workers.Sweep}

    Every node brings back by itself what is due; see `Plausible.Webhooks.Workers`.
    Succeeds with the numbers. What has been due for more than two minutes is said in
    the log: nobody has claimed it, or receivers are slower than their events come.
    """

    @incomplete if Code.ensure_loaded?(Oban.Job) and
                     function_exported?(Oban.Job, :unique_states, 1),
                   do: :incomplete,
                   else: [:available, :scheduled, :executing, :retryable]

    use Oban.Worker,
      queue: :webhooks,
      max_attempts: 3,
      unique: [period: 50, states: @incomplete]

    alias Plausible.Webhooks.{Telemetry, Workers}

    require Logger

    @overdue_ms 120_000

    @impl Oban.Worker
    def perform(job), do: Workers.run(job, &look/1)

    @impl Oban.Worker
    def backoff(_job), do: 10

    @impl Oban.Worker
    def timeout(_job), do: :timer.seconds(50)

    defp look(name) do
      with :ok <- Plausible.Webhooks.sweep(name),
           {:ok, queue} <- Telemetry.queue(name) do
        if queue.overdue_ms > @overdue_ms do
          Logger.warning(
            "webhooks: #{queue.pending + queue.parked} deliveries wait, one of them has been " <>
              "due for #{div(queue.overdue_ms, 1_000)} s"
          )
        end

        {:ok, queue}
      end
    end
  end
end
