if Code.ensure_loaded?(Oban.Worker) do
  defmodule Plausible.Webhooks.Workers.Retention do
    @moduledoc """
    Deletes finished deliveries that are older than the instance's `:retention_ms`:
    `Plausible.Webhooks.prune/1`.

        {"*/10 * * * *", Plausible.Webhooks.Workers.Retention}

    Deletes a slice at a time and waits for nobody; whatever a job does not get done,
    the next one does. Succeeds with how many deliveries it were.
    """

    @incomplete if Code.ensure_loaded?(Oban.Job) and
                     function_exported?(Oban.Job, :unique_states, 1),
                   do: :incomplete,
                   else: [:available, :scheduled, :executing, :retryable]

    use Oban.Worker,
      queue: :webhooks,
      max_attempts: 3,
      unique: [period: 300, states: @incomplete]

    alias Plausible.Webhooks.Workers

    @impl Oban.Worker
    def perform(job), do: Workers.run(job, &Plausible.Webhooks.prune/1)

    @impl Oban.Worker
    def backoff(_job), do: 60

    @impl Oban.Worker
    def timeout(_job), do: :timer.minutes(9)
  end
end
