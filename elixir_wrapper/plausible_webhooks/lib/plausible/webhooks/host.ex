defmodule Plausible.Webhooks.Host do
  @moduledoc """
  The application that runs an instance, such as Plausible. It answers questions about sites,
  goals, visitors and permissions. The instance gets it as the option `host: {module,
  argument}`, and passes that argument to every callback as the first one.

  No callback runs while the host handles an ingestion request.
  """

  @typedoc "The argument of the option `:host`."
  @type arg :: term()
  @typedoc "The host's id of a site."
  @type site_id :: integer()
  @typedoc "The host's user who calls a function of `Plausible.Webhooks`, or `:system`."
  @type actor :: term()
  @typedoc "What the actor wants to do with the webhooks of a site."
  @type action :: :read | :manage
  @typedoc """
  A site, and what its webhooks may send about goal completions. A host may show its users
  less than it stores (a plan without custom properties, a locked team). Then a webhook must
  not send more:

    * `events`: whether goal completions are sent at all. Default `true`.
    * `props`: the names of the custom properties that a body may hold, or `:all`, the
      default. This does not change which events complete a goal with custom properties. A
      goal that must not be completed is not in the list of `c:goals/2`.
    * `revenue`: whether a body may hold revenue. With `false`, `revenue` is `null` in every
      body. Default `true`.

  Tests that a user sends follow the same rules. A change takes effect at once when the host
  calls `Plausible.Webhooks.goals_changed/2`. Otherwise it takes effect when the site is read
  again. That takes up to a minute for every 200 sites with webhooks.
  """
  @type site :: %{
          required(:id) => site_id(),
          required(:domain) => String.t(),
          required(:timezone) => String.t(),
          required(:stats_start_at_ms) => integer() | nil,
          optional(:events) => boolean(),
          optional(:props) => :all | [String.t()],
          optional(:revenue) => boolean()
        }

  @typedoc "What the evaluation of thresholds needs of a site."
  @type alert_site :: %{
          required(:id) => site_id(),
          required(:domain) => String.t(),
          required(:timezone) => String.t(),
          required(:stats_start_at_ms) => integer() | nil,
          optional(atom()) => term()
        }

  @typedoc "What a site's webhooks may send. The keys of `props` are the names of properties."
  @type tells :: %{
          events: boolean(),
          props: :all | %{String.t() => true},
          revenue: boolean()
        }

  @typedoc """
  A goal as Plausible stores it. Either `event_name` or `page_path` is set.
  `scroll_threshold` is -1 for a goal without one. An event must have all of the
  `custom_props`. `currency` is `nil` or a code such as `"EUR"`.
  """
  @type goal :: %{
          id: integer(),
          name: String.t(),
          event_name: String.t() | nil,
          page_path: String.t() | nil,
          scroll_threshold: integer(),
          custom_props: %{String.t() => String.t()},
          currency: String.t() | nil
        }

  @typedoc "A half-open window of time, `[from_ms, to_ms)`."
  @type window :: {from_ms :: integer(), to_ms :: integer()}

  @doc "The site, or `nil` if it does not exist (any more)."
  @callback site(arg(), site_id()) :: site() | nil

  @doc "The site with this domain, or `nil`."
  @callback site_by_domain(arg(), String.t()) :: site() | nil

  @doc "Every goal of the site (up to 1 000)."
  @callback goals(arg(), site_id()) :: [goal()]

  @doc """
  The number of unique visitors of each site in each window, in the order of the windows.
  Engagement events do not count as visits.

  Thresholds are evaluated every minute. Then this is called for up to 1 000 sites at once. A
  host should count them in one query. An error fails the evaluation of all these sites.
  """
  @callback visitors(arg(), [site_id()], [window()]) ::
              {:ok, %{site_id() => [non_neg_integer()]}} | {:error, term()}

  @doc "The top sources and pages of the window, at most `limit` of each, the largest first."
  @callback breakdown(arg(), site_id(), window(), limit :: pos_integer()) ::
              {:ok,
               %{
                 sources: [%{name: String.t(), visitors: non_neg_integer()}],
                 pages: [%{path: String.t(), visitors: non_neg_integer()}]
               }}
              | {:error, term()}

  @doc """
  Those of the sites that exist and whose traffic alerts may be sent now (no locked team, no
  refused traffic), in any order. Called every minute with the sites that have thresholds, up
  to 10 000 at once. A host should read them in one query.
  """
  @callback alert_sites(arg(), [site_id()]) :: [alert_site()]

  @doc "The URL of the site's dashboard, or `nil` if there is none."
  @callback dashboard_url(arg(), site_id()) :: String.t() | nil

  @doc "Whether the actor may do this with the site's webhooks. Every call asks again."
  @callback can?(arg(), actor(), action(), site_id()) :: boolean()

  @doc "Tells the owners of the site that a webhook was disabled (`:gone`, `:failing` or `:costly`)."
  @callback webhook_disabled(arg(), Plausible.Webhooks.Webhook.t(), atom()) :: :ok

  @doc "Writes an entry into the host's audit log. The webhook holds no secrets."
  @callback audit(arg(), actor(), action_name :: atom(), Plausible.Webhooks.Webhook.t()) :: :ok

  @doc """
  Counts one more use of `key` in the host's own rate limiter. Returns `:ok` as long as there
  are at most `limit` uses in `window_ms`; otherwise the error says in how many milliseconds
  the next one is allowed. For a host without this callback, each node counts by itself.
  """
  @callback check_rate(
              arg(),
              key :: String.t(),
              window_ms :: pos_integer(),
              limit :: pos_integer()
            ) ::
              :ok | {:error, retry_in_ms :: pos_integer()}

  @doc """
  The actor's name for the audit log that people read, such as an e-mail address. For a host
  without this callback, an actor that is a string, an integer or an atom is its own name.
  """
  @callback actor_name(arg(), actor()) :: String.t()

  @optional_callbacks check_rate: 4, actor_name: 2

  @doc """
  What the site's webhooks may send about goal completions. Raises for a value of another
  shape, because the host then wants to hold something back, and it is not known what.

      iex> Plausible.Webhooks.Host.tells(%{id: 1, domain: "example.com", props: ["plan"]})
      %{events: true, props: %{"plan" => true}, revenue: true}
  """
  @spec tells(map()) :: tells()
  def tells(site) do
    %{
      events: boolean!(Map.get(site, :events, true)),
      props: props!(Map.get(site, :props, :all)),
      revenue: boolean!(Map.get(site, :revenue, true))
    }
  end

  defp boolean!(value) when is_boolean(value), do: value
  defp props!(:all), do: :all
  defp props!(names) when is_list(names), do: Map.new(names, &{to_string(&1), true})
end
