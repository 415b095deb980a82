defmodule Plausible.Webhooks.Cluster.Postgres do
  @moduledoc """
  Tells other nodes of changes by PostgreSQL (`LISTEN` and `NOTIFY`), where there is
  no PubSub that reaches them.

      {Plausible.Webhooks,
       cluster: {Plausible.Webhooks.Cluster.Postgres, repo: MyApp.Repo},
       store: {Plausible.Webhooks.Store.Ecto, repo: MyApp.Repo},
       vault: [System.fetch_env!("WEBHOOKS_KEY")],
       host: {MyApp.WebhooksHost, nil}}

  One connection more per node listens; it is opened with what the Repo is
  configured with. Options:

    * `:repo` - required: an `Ecto.Repo` on `Ecto.Adapters.Postgres`, started before
      this.
    * `:connection` - options of `Postgrex.start_link/1` that differ from the Repo's,
      for one that is given its options at the start, or for a database behind a
      pooler that pools transactions: notifications need a connection of their own
      (`[hostname: "db", port: 5432]`).
    * `:channel` - default `"plausible_webhooks"`, at most 63 bytes: the nodes that
      share it tell each other.
    * `:check_ms` - default 30 000: so often a notification is sent to oneself.

  When the connection is lost it is opened again, with growing pauses up to 10 s,
  and everything is read anew, since messages may have been lost. A connection that
  looks alive and brings nothing (a pooler, a firewall that has forgotten it) is
  noticed by the check.
  """

  @behaviour Plausible.Webhooks.Cluster

  use GenServer

  alias Plausible.Webhooks.Cluster
  alias Postgrex.Notifications

  require Logger

  @defaults [repo: nil, connection: [], channel: "plausible_webhooks", check_ms: 30_000]
  @version "1"
  @connect_ms 5_000
  @notify_ms 5_000
  @backoff_ms {200, 10_000}
  @repeat_ms 60_000

  @impl Cluster
  def listener(instance, options) do
    # What a supervisor prints of its children must not show a password.
    options = Keyword.validate!(options, @defaults)
    valid!(options[:repo], options[:channel])
    :persistent_term.put({__MODULE__, instance}, Base.encode16(:crypto.strong_rand_bytes(8)))
    %{id: __MODULE__, start: {__MODULE__, :start_link, [instance, fn -> options end]}}
  end

  defp valid!(repo, channel) do
    unless repo && Code.ensure_loaded?(repo) && function_exported?(repo, :__adapter__, 0),
      do: raise(ArgumentError, ":repo of the cluster must be an Ecto.Repo")

    unless is_binary(channel) and byte_size(channel) in 1..63,
      do: raise(ArgumentError, ":channel of the cluster must be a string of 1 to 63 bytes")
  end

  @impl Cluster
  def tell(instance, options, message) do
    options = Keyword.merge(@defaults, options)

    case message do
      {:goals_changed, site_id} -> notify(instance, options, "goals #{site_id}")
      {:webhook_changed, site_id, id} -> notify(instance, options, "webhook #{site_id} #{id}")
    end
  end

  # In the caller's process: in its transaction, if there is one, and then it leaves
  # with the commit.
  defp notify(instance, options, what) do
    payload = Enum.join([@version, origin(instance), what], " ")
    params = [options[:channel], payload]

    case options[:repo].query("SELECT pg_notify($1, $2)", params, log: false, timeout: @notify_ms) do
      {:ok, _result} -> :ok
      # An error's text quotes what was sent, and is of no use to anyone.
      {:error, %Postgrex.Error{postgres: %{code: code}}} -> {:error, {:postgres, code}}
      {:error, error} -> {:error, error.__struct__}
    end
  end

  # Who this is, from one start of the instance to the next. Nodes without
  # distribution have the same name, and in containers the same pid.
  defp origin(instance), do: :persistent_term.get({__MODULE__, instance}, "-")

  # --- the process that listens

  @doc false
  @spec start_link(atom(), (() -> keyword())) :: GenServer.on_start()
  def start_link(instance, options), do: GenServer.start_link(__MODULE__, {instance, options})

  # Tried once before the start goes on, so that as a rule we listen before the
  # first reading of everything, and need no second one.
  #
  # options: in a function, which a crash report does not show; connection: the
  # process that has it, or nil; checked: whether a check was sent that has not come
  # back.
  @impl GenServer
  def init({instance, options}) do
    Process.flag(:trap_exit, true)
    Process.send_after(self(), :check, options.()[:check_ms])
    state = %{instance: instance, options: options, connection: nil, checked?: false, failures: 0}
    {:ok, connect(Map.put(state, :said, nil))}
  end

  @impl GenServer
  def handle_info({:notification, connection, _ref, _channel, payload}, state) do
    if connection == state.connection,
      do: {:noreply, heard(state, String.split(payload, " ", parts: 5))},
      else: {:noreply, state}
  end

  def handle_info({:EXIT, connection, _reason}, %{connection: connection} = state)
      when is_pid(connection),
      do: {:noreply, later(%{state | connection: nil})}

  def handle_info(:connect, state), do: {:noreply, connect(state)}

  def handle_info(:check, state) do
    Process.send_after(self(), :check, state.options.()[:check_ms])
    {:noreply, check(state)}
  end

  def handle_info(_other, state), do: {:noreply, state}

  @impl GenServer
  def terminate(_reason, %{connection: nil}), do: :ok
  def terminate(_reason, %{connection: connection}), do: Process.exit(connection, :shutdown)

  # --- messages

  defp heard(state, [@version, from | what]) do
    case {from == origin(state.instance), what} do
      {true, ["check"]} -> %{state | checked?: false}
      {true, _ours} -> state
      {false, what} -> pass_on(state, what)
    end
  end

  defp heard(state, _another_version), do: state

  defp pass_on(state, ["goals", site_id]) do
    with {site_id, ""} <- Integer.parse(site_id),
         do: Cluster.received(state.instance, {:goals_changed, site_id})

    state
  end

  defp pass_on(state, ["webhook", site_id, id]) do
    with {site_id, ""} <- Integer.parse(site_id),
         do: Cluster.received(state.instance, {:webhook_changed, site_id, id})

    state
  end

  defp pass_on(state, _unknown), do: state

  # --- the connection

  defp connect(state) do
    # It ends with its connection, and we begin anew: then we know that there was a
    # gap, which it would not tell.
    with {:ok, connection} <- start(state.options.()),
         {:ok, _ref} <- listen(connection, state.options.()[:channel]) do
      Cluster.missed(state.instance)
      %{state | connection: connection, checked?: false, failures: 0}
    else
      _failed -> later(state)
    end
  end

  defp start(options) do
    options[:repo].config()
    |> Keyword.merge(options[:connection])
    |> Keyword.drop([:name, :pool, :pool_size, :after_connect])
    |> Keyword.merge(auto_reconnect: false, sync_connect: true, timeout: @connect_ms)
    |> Notifications.start_link()
  catch
    kind, reason -> {:error, {kind, reason}}
  end

  defp listen(connection, channel) do
    Notifications.listen(connection, channel, timeout: @connect_ms)
  catch
    :exit, reason ->
      Process.exit(connection, :kill)
      {:error, reason}
  end

  defp later(%{failures: failures} = state) do
    {first, longest} = @backoff_ms
    Process.send_after(self(), :connect, min(first * Integer.pow(2, min(failures, 10)), longest))

    say(
      %{state | failures: failures + 1},
      "the connection that listens is lost, and opened again; until then what other nodes " <>
        "change comes with the periodic refresh"
    )
  end

  # --- is it any good?

  defp check(%{connection: nil} = state), do: state

  defp check(%{checked?: false} = state) do
    # In a process of its own: the database may hang.
    %{instance: instance, options: options} = state
    spawn(fn -> notify(instance, options.(), "check") end)
    %{state | checked?: true}
  end

  # The end of it is told by its exit.
  defp check(state) do
    Process.exit(state.connection, :kill)

    say(
      state,
      "a notification to ourselves has not arrived within #{state.options.()[:check_ms]} ms; " <>
        "behind a pooler the option :connection has to name the database itself"
    )
  end

  defp say(state, sentence) do
    now = System.monotonic_time(:millisecond)

    if state.said == nil or now - state.said >= @repeat_ms do
      Logger.warning("webhooks: " <> sentence)
      %{state | said: now}
    else
      state
    end
  end
end
