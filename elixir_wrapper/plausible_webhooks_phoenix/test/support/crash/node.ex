defmodule Plausible.Webhooks.Test.Crash.Node do
  @moduledoc false
  # What runs in a VM that is going to be killed: the whole application on Store.Ecto,
  # and a load on it. Told what to do by lines on its input; ends with that input, so
  # never after its parent, and by itself when its time is over.
  #
  #   in   load <workers> <per second> <count>    until `idle`, or so many
  #        idle                                   no more load
  #        hog <ms>                               takes every connection of the pool
  #        stats
  #        stop                                   in good order
  #
  #   out  READY
  #        O <owner>                   of the engine, whenever it is another
  #        A <n>=<webhook-id>,...      accepted: somebody was told so
  #        IDLE <events>               so many events were given to the hook
  #        S <term in Base64>
  #        E <text>                    it could not start
  #
  # Every other batch goes by the hook, as a request of the host's would, and nobody
  # is told of those.

  alias Plausible.Webhooks
  alias Plausible.Webhooks.{Delivery, Id}
  alias Plausible.Webhooks.Accept.Outbox
  alias Plausible.Webhooks.Deliver.Owners
  alias Plausible.Webhooks.Runtime.Instance
  alias Plausible.Webhooks.Test.Repo

  @type config :: %{
          repo: keyword(),
          store: keyword(),
          options: keyword(),
          webhooks: [String.t()],
          first: non_neg_integer(),
          accept_ms: pos_integer(),
          batch_max: pos_integer(),
          lifetime_ms: pos_integer(),
          log: Logger.level() | :none
        }

  # Of what is accepted directly one in so many goes to the endpoint that is broken.
  @bad_one_in 20

  @spec main() :: no_return()
  def main do
    config =
      "WEBHOOKS_CRASH_CONFIG" |> System.fetch_env!() |> File.read!() |> :erlang.binary_to_term()

    :timer.apply_after(config.lifetime_ms, :erlang, :halt, [3, [flush: false]])
    Logger.configure(level: config.log)
    {:ok, _started} = Application.ensure_all_started(:plausible_webhooks_phoenix)
    {:ok, _started} = Application.ensure_all_started(:postgrex)

    # Some hosts start with the store away; whoever supervises them starts them again.
    children = [
      {Repo, config.repo},
      {Demo.Host,
       sites: [%{id: 1, domain: "example.com", goals: [%{id: 1, event_name: "Signup"}]}]},
      {Webhooks,
       [
         store: {Webhooks.Store.Ecto, [repo: Repo] ++ config.store},
         host: {Demo.Host, Demo.Host},
         traffic: false
       ] ++ config.options}
    ]

    Process.flag(:trap_exit, true)

    case Supervisor.start_link(children, strategy: :one_for_one) do
      {:ok, _supervisor} ->
        spawn_link(fn -> watch_owner(nil) end)
        IO.puts("READY")
        listen(Map.merge(config, %{next: :atomics.new(2, []), workers: []}))

      {:error, reason} ->
        IO.puts("E #{inspect(reason, limit: 20) |> String.replace("\n", " ")}")
        :erlang.halt(1)
    end
  end

  defp watch_owner(last) do
    case Owners.engine(Instance.fetch!(Webhooks)) do
      %{owner: owner} when owner != last ->
        IO.puts("O #{owner}")
        watch_owner(owner)

      _the_same_or_none ->
        Process.sleep(20)
        watch_owner(last)
    end
  end

  # --- what it is told

  defp listen(state) do
    case IO.gets("") do
      line when is_binary(line) -> line |> String.split() |> told(state) |> listen()
      _end_of_input -> :erlang.halt(0)
    end
  end

  defp told(["load", workers, per_s, count], state) do
    [workers, per_s, count] = Enum.map([workers, per_s, count], &String.to_integer/1)
    load = %{pause_us: div(workers * 1_000_000, max(per_s, 1)), left: :atomics.new(1, [])}
    :atomics.put(load.left, 1, count)
    workers = for _ <- 1..workers, do: spawn_monitor(fn -> work(state, load) end)
    Map.merge(state, %{workers: workers, left: load.left})
  end

  defp told(["idle"], %{workers: workers} = state) do
    if workers != [], do: :atomics.put(state.left, 1, 0)
    for {_pid, ref} <- workers, do: receive(do: ({:DOWN, ^ref, _, _, _} -> :ok))
    IO.puts("IDLE #{:atomics.get(state.next, 2)}")
    %{state | workers: []}
  end

  # Each keeps a connection busy by a statement, as somebody's report would.
  defp told(["hog", ms], state) do
    for _ <- 1..Keyword.fetch!(state.repo, :pool_size) do
      spawn(fn ->
        Repo.query("SELECT pg_sleep($1)", [String.to_integer(ms) / 1_000],
          queue_target: 60_000,
          timeout: 60_000,
          log: false
        )
      end)
    end

    state
  end

  defp told(["stats"], state) do
    instance = Instance.fetch!(Webhooks)

    dropped =
      :ets.select(instance.tables.meta, [{{{:dropped, :"$1"}, :"$2"}, [], [{{:"$1", :"$2"}}]}])

    stats = Map.put(Webhooks.stats(), :dropped_why, Map.new(dropped))
    IO.puts("S " <> Base.encode64(:erlang.term_to_binary(stats)))
    state
  end

  defp told(["stop"], _state) do
    System.stop(0)
    Process.sleep(:infinity)
  end

  # --- the load

  defp work(state, load) do
    count = :rand.uniform(state.batch_max)

    if :atomics.sub_get(load.left, 1, count) >= 0 do
      started = System.monotonic_time(:microsecond)
      if :rand.uniform(2) == 1, do: accept(state, count), else: hook(state, count)
      spent = System.monotonic_time(:microsecond) - started
      Process.sleep(max(div(load.pause_us * count - spent, 1_000), 0))
      work(state, load)
    end
  end

  defp accept(state, count) do
    now_ms = System.system_time(:millisecond)
    numbered = for n <- numbers(state, count), do: {"d#{n}", Id.delivery(now_ms)}

    deliveries =
      for {n, id} <- numbered do
        %Delivery{
          id: id,
          webhook_id: webhook(state.webhooks),
          site_id: 1,
          type: "goal.completed",
          goal_id: 1,
          body: ~s({"n":"#{n}","padding":"#{String.duplicate("x", 400)}"}),
          created_at_ms: now_ms
        }
      end

    if Outbox.accept(Webhooks, deliveries, state.accept_ms) == :ok,
      do: IO.puts("A " <> Enum.map_join(numbered, ",", fn {n, id} -> "#{n}=#{id}" end))
  end

  defp webhook([good, bad]), do: if(:rand.uniform(@bad_one_in) == 1, do: bad, else: good)

  defp hook(state, count) do
    events =
      for n <- numbers(state, count) do
        %{
          clickhouse_event: %{
            site_id: 1,
            name: "Signup",
            hostname: "example.com",
            pathname: "/register",
            timestamp: NaiveDateTime.utc_now(),
            "meta.key": ["n"],
            "meta.value": ["e#{n}"]
          }
        }
      end

    Webhooks.events_buffered(events)
    :atomics.add(state.next, 2, count)
  end

  defp numbers(state, count) do
    last = state.first + :atomics.add_get(state.next, 1, count)
    (last - count + 1)..last
  end
end
