# One PostgreSQL for all tests; gone with this VM.
alias Plausible.Webhooks.Test.{Postgres, Repo}

{:ok, _apps} = Application.ensure_all_started(:bandit)

cluster = Postgres.start!()
:persistent_term.put(Postgres, cluster)

# Generous limits: tests ask for more connections at a time than there are, and fill large
# tables on a busy machine.
{:ok, repo} =
  Repo.start_link(
    Postgres.connect(cluster) ++
      [pool_size: 20, queue_target: 5_000, queue_interval: 30_000, timeout: 120_000, log: false]
  )

Process.unlink(repo)

# The Repo first, which would complain of the other's absence.
ExUnit.after_suite(fn _result ->
  if Process.alive?(repo), do: Supervisor.stop(repo)
  Postgres.remove(cluster)
end)

# The host of the settings page. It listens only where a test starts another.
actors = Map.new(~w(owner viewer other nobody)a, &{Atom.to_string(&1), &1})

{:ok, page} =
  Supervisor.start_link(
    [{Phoenix.PubSub, name: Demo.PubSub}, {Demo.Web, page: %{actors: actors}}],
    strategy: :one_for_one
  )

Process.unlink(page)

# Some tests fill large tables, which takes its time on a busy machine.
ExUnit.start(timeout: 300_000, assert_receive_timeout: 30_000)
