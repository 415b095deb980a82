defmodule Plausible.Webhooks.Workers do
  @moduledoc """
  What one node of several has to do from time to time, as Oban jobs.

  | worker | when | does |
  |---|---|---|
  | `Plausible.Webhooks.Workers.Traffic` | each minute | evaluates the traffic of every site with a webhook for it |
  | `Plausible.Webhooks.Workers.Retention` | every ten minutes | deletes what is older than `:retention_ms` |
  | `Plausible.Webhooks.Workers.Sweep` | each minute | brings back what is due, and tells how the queue stands |

  The instance leaves the first two to them with `periodic: :oban`:

      # config/runtime.exs
      config :my_app, Oban,
        repo: MyApp.Repo,
        queues: [webhooks: 2],
        plugins: [
          {Oban.Plugins.Cron,
           crontab: [
             {"* * * * *", Plausible.Webhooks.Workers.Traffic},
             {"*/10 * * * *", Plausible.Webhooks.Workers.Retention},
             {"* * * * *", Plausible.Webhooks.Workers.Sweep}
           ]}
        ]

      # lib/my_app/application.ex
      children = [
        MyApp.Repo,
        {Phoenix.PubSub, name: MyApp.PubSub},
        {Plausible.Webhooks,
         periodic: :oban,
         cluster: {Plausible.Webhooks.Cluster.PubSub, pubsub: MyApp.PubSub},
         observers: [{Plausible.Webhooks.Telemetry, []}],
         store: {Plausible.Webhooks.Store.Ecto, repo: MyApp.Repo},
         vault: [System.fetch_env!("WEBHOOKS_KEY")],
         host: {MyApp.WebhooksHost, nil}},
        MyApp.Endpoint,
        {Oban, Application.fetch_env!(:my_app, Oban)}
      ]

  An instance with another name than the default one is named in the arguments, as
  `inspect/1` shows it: `{"* * * * *", Plausible.Webhooks.Workers.Traffic, args:
  %{instance: "MyApp.Webhooks"}}`. The queue `webhooks` may be another:
  `queue: :default`. Oban 2.17 or newer.

  ## What is no job

  Parked deliveries whose time has come, and what a dead node has left, are claimed
  by every node by itself, each second (`Plausible.Webhooks.Deliver.Sweeper`), with `FOR
  UPDATE SKIP LOCKED`: no two get the same one. It needs no scheduler, and it must
  not: nodes that run no queues deliver as well. `Plausible.Webhooks.Workers.Sweep`
  only looks after them: it does the same once more where it runs, and says how many
  deliveries wait over all nodes, and for how long.

  ## Twice, late, elsewhere

  A job that runs twice, or at the same time on two nodes, does no harm: an
  evaluation takes a turn in the store, and the others find it taken. A job that
  comes late looks at the traffic of now; several that come late at once do it once.

  A node on which the instance is not running says so and puts the job off by a few
  seconds, until a node takes it on which it is; after five minutes it is cancelled:
  the next one is there already.

  Without Oban nothing is to be done: `periodic: :local`, the default, does the same
  by timers, on one node at a time.
  """

  require Logger

  @snooze_s 5
  @give_up_s 300

  @doc """
  Runs `fun` with the name of the instance that the job is for; what the job ends
  with, as `c:Oban.Worker.perform/1` says it.
  """
  @spec run(map(), (atom() -> :ok | {:ok, term()} | {:error, term()})) ::
          :ok | {:ok, term()} | {:error, term()} | {:snooze, pos_integer()} | {:cancel, term()}
  def run(%{args: args} = job, fun) do
    case instance(Map.get(args, "instance", "Plausible.Webhooks")) do
      {:ok, name} ->
        case fun.(name) do
          {:error, :not_running} -> elsewhere(job, name)
          result -> result
        end

      :error ->
        elsewhere(job, Map.get(args, "instance"))
    end
  end

  # A name that this node has never heard of is the name of nothing that runs here.
  defp instance(":" <> name), do: existing(fn -> String.to_existing_atom(name) end)

  defp instance(name) when is_binary(name),
    do: existing(fn -> Module.safe_concat([name]) end)

  defp instance(_no_name), do: :error

  defp existing(fun) do
    {:ok, fun.()}
  rescue
    ArgumentError -> :error
  end

  defp elsewhere(job, name) do
    if age_s(job) < @give_up_s do
      Logger.info("webhooks: #{inspect(name)} is not running here, the job goes elsewhere")
      {:snooze, @snooze_s}
    else
      Logger.warning("webhooks: a job has found no node on which #{inspect(name)} is running")
      {:cancel, :not_running}
    end
  end

  defp age_s(%{inserted_at: %DateTime{} = at}), do: DateTime.diff(DateTime.utc_now(), at)
  defp age_s(_never_inserted), do: 0
end
