defmodule Plausible.Webhooks.Ingest.Payload do
  @moduledoc """
  The JSON bodies that receivers get: `{"type", "timestamp", "data"}`, described by a JSON
  Schema per type under `docs/schemas/`. The body of a test also has `"test": true`.

  A function per event type makes the `Plausible.Webhooks.Event`; `encode/1` makes its body. A
  completed goal has one body for all webhooks that subscribe to it. A traffic alert has one
  per webhook, because it holds the threshold. Everything in the body of a completion except
  the goal is the same for all goals that one event completes. `completion/3` makes that part
  once, as JSON, and every body includes it: an event with many properties may complete a
  thousand goals.

  Every body keeps these rules:

    * A body has every member that its schema names; an unknown value is `null`. `props` and
      `utm` are the exception: they hold only what the event had, `{}` if it had nothing.
    * Times are RFC 3339 in UTC. Money is a decimal string and a currency.
    * There is never an IP address, a user agent, a user or session id.
    * Bytes that are not UTF-8 become U+FFFD: a broken property must not cost the delivery.
    * In a body over 256 KiB, property values are cut to 500 bytes, ending in "…". Only text
      that JSON escapes byte by byte makes such a body.
  """

  alias Plausible.Webhooks.{Event, Native}
  alias Plausible.Webhooks.Ingest.{Goals, Subscriptions}
  alias Plausible.Webhooks.Ingest.Payload.Text

  @body_bytes_max 256 * 1_024
  # A completion of so many bytes may not fit beside a goal and a site.
  @completion_bytes_max @body_bytes_max - 32 * 1_024
  @cut_bytes 500

  @utm [
    source: :utm_source,
    medium: :utm_medium,
    campaign: :utm_campaign,
    content: :utm_content,
    term: :utm_term
  ]

  @typedoc "A traffic alert, as `Plausible.Webhooks.Ingest.Traffic` finds it."
  @type alert :: %{
          required(:kind) => :spike | :drop,
          required(:id) => String.t(),
          required(:started_at_ms) => integer(),
          required(:current_visitors) => non_neg_integer(),
          required(:threshold) => pos_integer() | nil,
          required(:window_seconds) => pos_integer(),
          optional(:baseline) => baseline() | nil,
          optional(:sources) => [%{name: String.t(), visitors: non_neg_integer()}],
          optional(:pages) => [%{path: String.t(), visitors: non_neg_integer()}]
        }
  @typedoc "The usual number of visitors, and the change against it."
  @type baseline :: %{
          visitors: float(),
          samples: [non_neg_integer()],
          change_percent: float() | nil
        }
  @typedoc "The site, as a body has it."
  @type site :: %{
          required(:id) => integer(),
          required(:domain) => String.t(),
          optional(:dashboard_url) => String.t() | nil
        }

  @typedoc """
  The `completion` member as JSON, and the time of the completion as a number and as text.
  `cut` is the member with its property values cut if `json` may be too large; otherwise `nil`.
  """
  @type completion :: %{
          json: binary(),
          cut: binary() | nil,
          found_at_ms: integer(),
          timestamp: String.t()
        }

  @everything %{props: :all, revenue: true}

  @doc """
  The site as the bodies of this event have it, with the domain that the ingestion found. The
  domain in the event itself may be an old one.
  """
  @spec site(Subscriptions.t(), map()) :: site()
  def site(%Subscriptions{site_id: id, domain: known}, event) do
    domain =
      case event do
        %{site: %{domain: domain}} when is_binary(domain) -> domain
        _other -> known
      end

    %{id: id, domain: domain}
  end

  # --- events

  @doc """
  The part of an ingested event that is the same for all goals that it completes. `now_ms` is
  the time of the completion. `{:error, reason}` is the encoder's.
  """
  @spec completion(map(), integer(), Subscriptions.tells()) ::
          {:ok, completion()} | {:error, term()}
  def completion(%{clickhouse_event: event}, now_ms, tells \\ @everything) do
    told = %{
      event_name: event.name,
      hostname: text(event, :hostname),
      pathname: text(event, :pathname),
      occurred_at: utc(Map.get(event, :timestamp)),
      props: event |> Goals.props() |> told(tells.props),
      revenue: if(tells.revenue, do: revenue(event)),
      referrer: text(event, :referrer),
      source: text(event, :referrer_source),
      utm: utm(event),
      country: text(event, :country_code),
      device: text(event, :screen_size),
      browser: text(event, :browser),
      os: text(event, :operating_system)
    }

    with {:ok, json} <- json(told), {:ok, cut} <- cut(told, json) do
      {:ok, %{json: json, cut: cut, found_at_ms: now_ms, timestamp: utc_ms(now_ms)}}
    end
  end

  defp told(props, :all), do: props
  defp told(props, _some) when props == %{}, do: props
  defp told(props, some), do: Map.filter(props, fn {key, _value} -> is_map_key(some, key) end)

  defp cut(%{props: props} = told, json)
       when byte_size(json) > @completion_bytes_max and props != %{} do
    props = Map.new(props, fn {key, value} -> {key, Text.cut(value, @cut_bytes)} end)
    # A cut inside bytes that are not UTF-8 may leave any bytes.
    json(Text.make_encodable(%{told | props: props}))
  end

  defp cut(_told, _json), do: {:ok, nil}

  @doc """
  A completed goal, from what `Plausible.Webhooks.Ingest.Goals.completed/3` found and the
  `completion/3` of its event.
  """
  @spec goal_completed(site(), Goals.goal(), completion()) :: Event.t()
  def goal_completed(site, goal, completion) do
    %Event{
      type: "goal.completed",
      site_id: site.id,
      occurred_at_ms: completion.found_at_ms,
      goal_id: goal.id,
      data: %{
        site: %{domain: site.domain},
        goal: %{id: goal.id, name: goal.name, type: goal.type},
        completion: completion
      }
    }
  end

  @doc "A breach of a threshold: `traffic.spike` or `traffic.drop`."
  @spec traffic_fired(site(), alert(), integer()) :: Event.t()
  def traffic_fired(site, %{kind: kind} = alert, now_ms) do
    traffic_event("traffic.#{kind}", site, now_ms, %{
      alert: %{id: alert.id, status: "firing", started_at: utc_ms(alert.started_at_ms)},
      current_visitors: alert.current_visitors,
      threshold: alert.threshold,
      window_seconds: alert.window_seconds,
      baseline: baseline(alert[:baseline]),
      top_sources: Enum.map(alert[:sources] || [], &Map.take(&1, [:name, :visitors])),
      top_pages: Enum.map(alert[:pages] || [], &Map.take(&1, [:path, :visitors]))
    })
  end

  @doc "The end of a breach: `traffic.resolved`, with the id of the alert that fired."
  @spec traffic_resolved(site(), alert(), integer()) :: Event.t()
  def traffic_resolved(site, %{kind: kind} = alert, now_ms) do
    traffic_event("traffic.resolved", site, now_ms, %{
      alert: %{
        id: alert.id,
        kind: Atom.to_string(kind),
        status: "resolved",
        started_at: utc_ms(alert.started_at_ms),
        resolved_at: utc_ms(now_ms)
      },
      current_visitors: alert.current_visitors,
      threshold: alert.threshold,
      window_seconds: alert.window_seconds
    })
  end

  defp traffic_event(type, site, now_ms, data) do
    data =
      Map.merge(data, %{
        site: %{domain: site.domain},
        dashboard_url: Map.get(site, :dashboard_url)
      })

    %Event{type: type, site_id: site.id, occurred_at_ms: now_ms, data: data}
  end

  defp baseline(nil), do: nil

  defp baseline(%{visitors: visitors, samples: samples, change_percent: change}) do
    %{
      visitors: visitors,
      method: "same_weekday_and_time_4w",
      samples: samples,
      change_percent: change
    }
  end

  # --- test deliveries

  @doc """
  The event of the test button: `webhook.test`, or a sample of any other type. A sample has
  the site's own domain and, for a goal, one of the site's goals (`nil`: an invented one), and
  holds nothing that the site's webhooks may not send. Invented values are the same in every
  sample. The body says that it is a test.
  """
  @spec sample(
          Event.type(),
          site(),
          Plausible.Webhooks.Host.goal() | nil,
          integer(),
          Subscriptions.tells()
        ) :: Event.t()
  def sample(type, site, goal, now_ms, tells \\ @everything),
    do: %{sampled(type, site, goal, now_ms, tells) | test: true}

  defp sampled("webhook.test", site, _goal, now_ms, _tells) do
    %Event{
      type: "webhook.test",
      site_id: site.id,
      occurred_at_ms: now_ms,
      data: %{
        site: %{domain: site.domain},
        message: "It works: this endpoint receives webhooks of #{site.domain}."
      }
    }
  end

  defp sampled("goal.completed", site, goal, now_ms, tells) do
    goal = goal || sample_goal()

    event = %{
      name: goal.event_name || sample_name(goal),
      hostname: site.domain,
      pathname: sample_path(goal),
      timestamp: now_ms |> DateTime.from_unix!(:millisecond) |> DateTime.truncate(:second),
      "meta.key": Map.keys(goal.custom_props),
      "meta.value": Map.values(goal.custom_props),
      revenue_reporting_amount: goal.currency && "49.00",
      revenue_reporting_currency: goal.currency,
      referrer: "https://news.ycombinator.com",
      referrer_source: "Hacker News",
      utm_source: "hn",
      country_code: "EE",
      screen_size: "Desktop",
      browser: "Firefox",
      operating_system: "GNU/Linux"
    }

    type = goal_type(goal)
    compiled = %{id: goal.id, name: goal.name, type: type, currency: goal.currency}
    {:ok, completion} = completion(%{clickhouse_event: event}, now_ms, tells)
    goal_completed(site, compiled, completion)
  end

  defp sampled("traffic." <> kind, site, _goal, now_ms, _tells) do
    alert = sample_alert(if(kind == "drop", do: :drop, else: :spike), now_ms)

    if kind == "resolved",
      do: traffic_resolved(site, %{alert | current_visitors: 240}, now_ms),
      else: traffic_fired(site, alert, now_ms)
  end

  defp sample_goal do
    %{
      id: 0,
      name: "Signup",
      event_name: "Signup",
      page_path: nil,
      scroll_threshold: -1,
      custom_props: %{"plan" => "growth"},
      currency: "EUR"
    }
  end

  defp goal_type(%{event_name: name}) when is_binary(name), do: "event"
  defp goal_type(%{scroll_threshold: threshold}) when threshold > -1, do: "scroll"
  defp goal_type(_goal), do: "page"

  defp sample_name(goal), do: if(goal_type(goal) == "scroll", do: "engagement", else: "pageview")

  defp sample_path(%{page_path: path}) when is_binary(path),
    do: String.replace(path, ~r/\*+/, "example")

  defp sample_path(_event_goal), do: "/register"

  defp sample_alert(:spike, now_ms) do
    %{
      kind: :spike,
      id: "alr_00000000000000000000000000",
      started_at_ms: now_ms,
      current_visitors: 512,
      threshold: 300,
      window_seconds: 300,
      baseline: %{visitors: 110.5, samples: [101, 120], change_percent: 363.3},
      sources: [%{name: "Hacker News", visitors: 301}],
      pages: [%{path: "/post", visitors: 402}]
    }
  end

  defp sample_alert(:drop, now_ms) do
    %{
      kind: :drop,
      id: "alr_00000000000000000000000000",
      started_at_ms: now_ms,
      current_visitors: 3,
      threshold: 20,
      window_seconds: 43_200,
      baseline: %{visitors: 84.0, samples: [80, 88, 84, 84], change_percent: -96.4}
    }
  end

  # --- the body

  @doc """
  The body. `{:error, :body_too_large}` if it has more than 256 KiB even with the properties
  cut; any other reason is the encoder's.
  """
  @spec encode(Event.t()) :: {:ok, binary()} | {:error, term()}
  def encode(%Event{data: %{completion: %{json: json, cut: cut}} = data} = event) do
    with {:ok, about} <- json(%{site: data.site, goal: data.goal}) do
      # Without the last brace, because the completion follows. The completion is JSON
      # already, and is neither parsed nor escaped again.
      about = binary_part(about, 0, byte_size(about) - 1)

      with {:error, :body_too_large} when cut != nil <- completed(event, about, json),
           do: completed(event, about, cut)
    end
  end

  def encode(%Event{data: data} = event) do
    with {:ok, json} <- json(data), do: body(event, json, "")
  end

  defp completed(event, about, completion),
    do: body(event, [about, ",\"completion\":", completion], "}")

  # Put together by hand, so that the members stand in this order. A body that is too large is
  # not put together first.
  defp body(event, data, last) do
    time = timestamp(event)
    test = if event.test, do: ",\"test\":true", else: ""
    begin = ["{\"type\":\"", event.type, "\",\"timestamp\":\"", time, "\",\"data\":"]
    body = [begin, data, last, test, "}"]

    if IO.iodata_length(body) <= @body_bytes_max,
      do: {:ok, IO.iodata_to_binary(body)},
      else: {:error, :body_too_large}
  end

  defp timestamp(%Event{data: %{completion: %{timestamp: timestamp}}}), do: timestamp
  defp timestamp(%Event{occurred_at_ms: ms}), do: utc_ms(ms)

  defp json(term) do
    with {:error, _not_encodable} <- Native.encode(term),
         do: Native.encode(Text.make_encodable(term))
  end

  # --- values

  # Values that Plausible stores for "nothing".
  @nothing ["", "(none)", "(not set)", "Direct / None"]

  defp text(event, key) do
    case Map.get(event, key) do
      value when is_binary(value) ->
        # A ClickHouse FixedString pads with NULs.
        value = String.trim_trailing(value, <<0>>)
        if value in @nothing, do: nil, else: value

      _other ->
        nil
    end
  end

  defp utm(event) do
    for {name, key} <- @utm, value = text(event, key), into: %{}, do: {name, value}
  end

  # The reporting amount is the one in the goal's currency, which the dashboard
  # shows; the source amount is what the visitor paid.
  defp revenue(event) do
    money(event, :revenue_reporting_amount, :revenue_reporting_currency) ||
      money(event, :revenue_source_amount, :revenue_source_currency)
  end

  defp money(event, amount_key, currency_key) do
    with amount when is_binary(amount) <- event |> Map.get(amount_key) |> Text.decimal(),
         <<_::24>> = currency <- currency(Map.get(event, currency_key)) do
      %{amount: amount, currency: currency}
    else
      _none -> nil
    end
  end

  defp currency(code) when is_binary(code), do: String.trim_trailing(code, <<0>>)
  defp currency(code) when is_atom(code) and code != nil, do: Atom.to_string(code)
  defp currency(_other), do: nil

  # Plausible's timestamps are naive and UTC.
  defp utc(%NaiveDateTime{} = time), do: NaiveDateTime.to_iso8601(time) <> "Z"
  defp utc(%DateTime{} = time), do: DateTime.to_iso8601(time)
  defp utc(_other), do: nil

  defp utc_ms(ms), do: ms |> DateTime.from_unix!(:millisecond) |> DateTime.to_iso8601()
end
