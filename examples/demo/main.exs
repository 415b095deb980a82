# Replays events into the small host of examples/host, which passes them to the webhooks. A
# receiver verifies every POST and refuses some, to cause retries. script/demo runs this
# file; its header lists the options.
for file <- ~w(host/events host/sites host/host host/ingestion
               demo/screen demo/receiver demo/narrator demo/summary),
    do: Code.require_file("../#{file}.ex", __DIR__)

defmodule Demo do
  alias Demo.{Narrator, Receiver, Screen, Summary}
  alias Plausible.Webhooks
  alias Plausible.Webhooks.Ingest.{Dedup, Directory, Goals, Traffic}

  @examples Path.expand("..", __DIR__)
  @options [
    events: :string,
    sites: :string,
    url: :string,
    secret: :string,
    verbose: :boolean,
    pause: :integer,
    keep: :string,
    web: :boolean,
    port: :integer
  ]
  # Slow enough to watch. Without the page, the day takes seconds.
  @web_pause_ms 250
  @wait_ms 60_000

  def main(arguments) do
    # So that start!/1 can report a child that does not start.
    Process.flag(:trap_exit, true)
    settings = settings(arguments)
    {:ok, _} = Screen.start_link(nil)

    try do
      run(settings)
    after
      Supervisor.stop(Demo.Supervisor, :normal, 30_000)
    end
  end

  defp settings(arguments) do
    case OptionParser.parse(arguments, strict: @options) do
      {settings, [], []} -> settings |> Map.new() |> checked()
      {_settings, rest, wrong} -> usage(rest ++ Enum.map(wrong, &as_given/1))
    end
  end

  defp as_given({option, nil}), do: option
  defp as_given({option, value}), do: "#{option} #{value}"

  defp usage(wrong),
    do: refuse("not understood: #{Enum.join(wrong, " ")} (see script/demo --help)")

  # Checks the settings before anything starts.
  defp checked(settings) do
    unless settings[:events] in [nil, "-"], do: readable!(settings.events)
    unless settings[:keep], do: refuse("--keep is missing; use script/demo")
    if settings[:pause] && settings.pause < 0, do: refuse("--pause: must not be negative")
    if settings[:port] && settings.port not in 0..65_535, do: refuse("--port: is no port")

    case File.mkdir_p(settings.keep) do
      :ok -> Map.put(settings, :site_list, sites(settings))
      {:error, :eexist} -> refuse("--keep #{settings.keep}: is not a folder")
      {:error, reason} -> refuse("--keep #{settings.keep}: #{:file.format_error(reason)}")
    end
  end

  # Does not open the file: a pipe can be read only once.
  defp readable!(path) do
    case File.stat(path) do
      {:ok, %{type: :directory}} -> refuse("--events #{path}: is a directory")
      {:ok, %{access: access}} when access in [:read, :read_write] -> :ok
      {:ok, _stat} -> refuse("--events #{path}: permission denied")
      {:error, reason} -> refuse("--events #{path}: #{:file.format_error(reason)}")
    end
  end

  defp sites(settings) do
    case Demo.Sites.read(settings[:sites] || Path.join(@examples, "sites.json")) do
      {:ok, sites} -> sites
      {:error, message} -> refuse("--sites #{message}")
    end
  end

  defp refuse(text) do
    IO.puts(:stderr, "demo: #{text}")
    System.halt(2)
  end

  defp run(settings) do
    own = settings[:url] == nil
    loopback!()
    port = Receiver.start!()
    Narrator.start(settings[:verbose] || false)
    start!(settings)
    forget(settings)
    overture(settings)
    webhooks = webhooks(settings, port)
    Narrator.introduce(webhooks)
    if settings[:web], do: served(settings)
    tally = replay(settings)
    if settings[:web], do: stay()
    waited = wait(System.monotonic_time(:millisecond) + @wait_ms)
    recorded = not Enum.any?([:events, :sites, :url], &settings[&1])
    Summary.print(webhooks, %{tally: tally, own: own, waited: waited, recorded: recorded})
  end

  # Without it nothing arrives, and every delivery would end as a refused connection.
  defp loopback! do
    with {:ok, listener} <- :gen_tcp.listen(0, ip: {127, 0, 0, 1}),
         {:ok, port} = :inet.port(listener),
         {:ok, _socket} <- :gen_tcp.connect({127, 0, 0, 1}, port, [], 2_000) do
      :gen_tcp.close(listener)
    else
      {:error, reason} ->
        refuse(
          "127.0.0.1 cannot be reached (#{:inet.format_error(reason)}): is the loopback " <>
            "interface down? As root: ip link set lo up"
        )
    end
  end

  defp overture(settings) do
    events = if settings[:events], do: "Your events go", else: "A recorded day of two sites goes"

    shown =
      if settings[:verbose],
        do: "Every event that completes a goal and every POST is shown",
        else:
          "Shown are the first delivery of each webhook, the alerts, and the counts at the end"

    to = if settings[:url], do: "your endpoint", else: "a receiver that verifies every POST"
    Screen.plain("#{events} through the ingestion hook; what leaves goes to #{to}.")
    Screen.plain(shown <> if(settings[:verbose], do: ".", else: " (--verbose: everything)."))
  end

  # --- processes

  defp start!(%{keep: dir} = settings) do
    if settings[:web], do: start_page_apps()

    children = [
      {Demo.Host, sites: settings.site_list},
      {
        Webhooks,
        # The receiver is on this machine. A real instance keeps the default policy:
        # HTTPS only, public addresses only. The retry delays are short, so that the demo
        # takes seconds. It evaluates the traffic itself, minute by minute of the day.
        store: {Plausible.Webhooks.Store.SQLite, path: Path.join(dir, "webhooks.db")},
        host: {Demo.Host, Demo.Host},
        vault: {:file, Path.join(dir, "webhooks.key")},
        policy: %{https_only: false, allow: ["127.0.0.0/8:*"]},
        retry_delays_ms:
          if(settings[:web], do: [15_000, 60_000, 300_000], else: [500, 1_000, 2_000]),
        traffic: [tick_ms: :infinity],
        observers: [{Narrator, %{own: settings[:url] == nil}} | updates(settings)]
      }
    ]

    case Supervisor.start_link(with_page(children, settings),
           strategy: :one_for_one,
           name: Demo.Supervisor
         ) do
      {:ok, _pid} ->
        :ok

      {:error, {:shutdown, {:failed_to_start_child, Demo.Web, _reason}}} ->
        refuse("--port #{port(settings)}: cannot be listened on")

      {:error, reason} ->
        IO.puts(:stderr, "demo: cannot start: #{Exception.format_exit(reason)}")
        System.halt(1)
    end
  end

  # --- the settings page, which is in the second project

  defp start_page_apps do
    for app <- [:phoenix_live_view, :bandit],
        do: {:ok, _apps} = Application.ensure_all_started(app)
  end

  defp updates(%{web: true}), do: [{Plausible.Webhooks.Updates, pubsub: Demo.PubSub}]
  defp updates(_settings), do: []

  defp with_page(children, %{web: true} = settings) do
    page = %{instance: Webhooks, pubsub: Demo.PubSub, actors: %{"you" => :system}}
    listen = [ip: {127, 0, 0, 1}, port: port(settings)]

    [{Phoenix.PubSub, name: Demo.PubSub}] ++
      children ++ [{Demo.Web, http: listen, server: true, page: page}]
  end

  defp with_page(children, _settings), do: children

  defp port(settings), do: settings[:port] || 4_000

  defp served(settings) do
    {:ok, {_ip, port}} = Demo.Web.Endpoint.server_info(:http)

    for %{id: id, domain: domain} <- settings.site_list,
        do:
          Screen.line(
            "",
            "page",
            :magenta,
            "http://127.0.0.1:#{port}/sites/#{id}/webhooks (#{domain})"
          )
  end

  defp stay do
    Screen.plain("\nThe day is over. The page stays; ^C ends it.")
    Process.sleep(:infinity)
  end

  # --- webhooks

  # Webhooks of an earlier demo in the same folder send to a port that is closed.
  defp forget(settings) do
    made = made(settings)

    with {:ok, text} <- File.read(made) do
      for line <- String.split(text, "\n", trim: true),
          [site_id, id] <- [String.split(line, " ")],
          do: Webhooks.delete_webhook(:system, String.to_integer(site_id), id)

      File.rm!(made)
    end
  end

  # The demo deletes only the webhooks that this file lists.
  defp made(settings), do: Path.join(settings.keep, "webhooks.demo")

  defp webhooks(settings, port) do
    wishes =
      case settings do
        %{url: url} -> all(settings.site_list, fn _id -> {nil, "Your endpoint", url} end)
        %{sites: _path} -> all(settings.site_list, &at_receiver(&1, port))
        _recorded -> ours(port)
      end

    Map.new(wishes, fn {site_id, path, attributes} ->
      attributes =
        if secret = settings[:secret], do: Map.put(attributes, :secret, secret), else: attributes

      {:ok, webhook} = created(Webhooks.create_webhook(:system, site_id, attributes))
      File.write!(made(settings), "#{site_id} #{webhook.id}\n", [:append])
      {:ok, [%{key: secret} | _]} = Webhooks.reveal_secret(:system, site_id, webhook.id)
      if path, do: Receiver.trust(path, secret)

      Screen.line("", "webhook", :green, [
        "#{attributes.name}: #{attributes.url} gets #{Enum.join(attributes.events, ", ")}",
        if(path, do: "", else: "; secret #{secret}")
      ])

      {webhook.id, %{site_id: site_id, name: attributes.name}}
    end)
  end

  defp created({:ok, webhook}), do: {:ok, webhook}

  defp created({:error, %{reason: {:invalid, fields}}}) do
    text = Enum.map_join(fields, "; ", fn {field, reason} -> "#{field} #{reason}" end)
    refuse("the webhook is not valid: #{text}")
  end

  defp ours(port) do
    url = &"http://127.0.0.1:#{port}#{&1}"

    [
      {1, "/crm",
       %{name: "CRM", url: url.("/crm"), events: ["goal.completed"], goals: [1, 2, 10]}},
      {1, "/flaky/partner",
       %{
         name: "Flaky partner",
         url: url.("/flaky/partner"),
         events: ["goal.completed"],
         goals: [3]
       }},
      {1, "/readers",
       %{name: "Readers", url: url.("/readers"), events: ["goal.completed"], goals: [5]}},
      {1, "/alerts",
       %{
         name: "Alerts",
         url: url.("/alerts"),
         events: ["traffic.spike", "traffic.drop"],
         spike_threshold: 40,
         drop_threshold: 50,
         # By default a webhook gets one spike in 12 hours, and the day has two.
         traffic_min_interval_s: 0
       }},
      {2, "/boutique", %{name: "Boutique", url: url.("/boutique"), events: ["goal.completed"]}}
    ]
  end

  defp at_receiver(site_id, port) do
    path = "/sites/#{site_id}"
    {path, "Site #{site_id}", "http://127.0.0.1:#{port}#{path}"}
  end

  # A drop needs usual traffic to compare with, so only sites with a history subscribe to it.
  defp all(sites, endpoint) do
    for %{id: id} = site <- sites do
      {path, name, url} = endpoint.(id)

      attributes = %{
        name: name,
        url: url,
        goals: :all,
        spike_threshold: 40,
        traffic_min_interval_s: 0
      }

      if site.history == [] do
        {id, path, Map.put(attributes, :events, ["goal.completed", "traffic.spike"])}
      else
        events = ["goal.completed", "traffic.spike", "traffic.drop"]
        {id, path, Map.merge(attributes, %{events: events, drop_threshold: 50})}
      end
    end
  end

  # --- the day

  defp replay(settings) do
    pause_ms = settings[:pause] || if(settings[:web], do: @web_pause_ms, else: 8)
    site = &Demo.Host.site_by_domain(Demo.Host, &1)
    told = Dedup.new()

    settings
    |> lines()
    |> Demo.Events.stream(site)
    |> Enum.reduce(%{events: 0, broken: 0, minute: nil, settles: true}, fn
      {_line, {:ok, event}}, tally ->
        if pause_ms > 0, do: Process.sleep(pause_ms)
        tally = minutes(tally, at_ms(event))
        completes = tell(event, told)
        :ok = Demo.Ingestion.keep(Demo.Host, Webhooks, event)
        tally = if completes, do: settled(tally), else: tally
        %{tally | events: tally.events + 1}

      {line, {:error, message}}, tally ->
        Screen.line("", "SKIPPED", :red, "line #{line}: #{message}")
        %{tally | broken: tally.broken + 1}
    end)
  end

  # An endpoint that does not answer must not stretch the day.
  defp settled(%{settles: settles} = tally), do: %{tally | settles: settles and Narrator.settle()}

  defp lines(settings) do
    case settings[:events] do
      nil -> File.stream!(Path.join(@examples, "events.ndjson"))
      "-" -> IO.stream(:stdio, :line)
      path -> File.stream!(path)
    end
  end

  # Evaluates the traffic once for each minute that the events have passed.
  defp minutes(tally, at_ms) do
    minute = div(at_ms, 60_000)

    if tally.minute != nil and minute > tally.minute do
      # After a long silence only the last twelve hours matter, the longest alert window.
      from = max(tally.minute + 1, minute - 720)
      fired = for each <- from..minute, evaluate(each * 60_000), do: each
      tally = if fired == [], do: tally, else: settled(tally)
      %{tally | minute: minute}
    else
      %{tally | minute: max(minute, tally.minute || minute)}
    end
  end

  defp evaluate(at_ms) do
    {:ok, %{fired: fired, resolved: resolved}} = Traffic.evaluate(Webhooks, at_ms)
    time = at_ms |> DateTime.from_unix!(:millisecond) |> time()

    if resolved > 0 and Narrator.verbose?(),
      do: Screen.line(time, "re-armed", :green, "traffic is back to normal; nothing is sent")

    fired > 0
  end

  # Finds the goals of the event again to print them. It has its own memory of the scroll
  # goals, which count once per visit and page.
  defp tell(%{clickhouse_event: %{site_id: site_id, name: name, pathname: path}} = event, told) do
    case Directory.lookup(Webhooks, site_id) do
      nil ->
        false

      subscriptions ->
        goals = Goals.completed(subscriptions, event, told)

        if Narrator.verbose?() or Enum.any?(goals, &new?/1) do
          names = Enum.map_join(goals, ", ", & &1.goal.name)
          completes = if goals == [], do: "", else: " completes #{names}"
          text = "#{name} on #{path} (#{subscriptions.domain})#{completes}"
          if goals != [], do: Screen.line(clock(event), "event", :yellow, text)
        end

        goals != []
    end
  end

  defp new?(%{webhooks: webhooks}), do: Enum.any?(webhooks, &(&1 |> elem(0) |> Narrator.new?()))

  defp clock(event), do: event |> at_ms() |> DateTime.from_unix!(:millisecond) |> time()

  defp time(date_time),
    do: date_time |> DateTime.to_time() |> Time.truncate(:second) |> to_string()

  defp at_ms(%{clickhouse_event: %{timestamp: timestamp}}),
    do: timestamp |> DateTime.from_naive!("Etc/UTC") |> DateTime.to_unix(:millisecond)

  # --- the end

  defp wait(until_ms) do
    %{outbox: outbox, journal: journal, engine: engine} = Webhooks.stats()
    waiting = (engine[:waiting] || 0) + (engine[:in_flight] || 0)

    cond do
      outbox + journal + waiting == 0 ->
        Process.sleep(200)
        :done

      System.monotonic_time(:millisecond) > until_ms ->
        :gave_up

      true ->
        Screen.progress("waiting for #{outbox + journal + waiting} deliveries (retries)")
        Process.sleep(100)
        wait(until_ms)
    end
  end
end

Logger.configure(level: :warning)
if Demo.main(System.argv()) == :ok, do: System.halt(0), else: System.halt(1)
