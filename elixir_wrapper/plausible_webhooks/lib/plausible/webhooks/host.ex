defmodule Plausible.Webhooks.Host do
  @moduledoc """
  The application around us (Plausible), which is asked about sites, goals, visitors and
  permissions. It is given at the start as `host: {module, argument}`, and every callback gets
  that argument first.

  No callback is called on the path of an ingestion request.
  """

  @typedoc "What was given at the start."
  @type arg :: term()
  @typedoc "The host's id of a site."
  @type site_id :: integer()
  @typedoc "The host's user who wants to do something, or `:system`."
  @type actor :: term()
  @typedoc "What the actor wants to do with the webhooks of a site."
  @type action :: :read | :manage
  @typedoc """
  A site, and what may be told of its goal completions. Where a host shows somebody less
  than it keeps (a plan without custom properties, a team that is locked), a webhook must
  not tell more:

    * `events`: `false`, no goal completion is told at all. Default `true`.
    * `props`: the custom properties that a body may hold, by name, or `:all`, the
      default. A goal with custom properties completes by them all the same; what is not
      to complete is not among `goals/2`.
    * `revenue`: `false`, `revenue` is `null` in every body. Default `true`.

  What the test button sends obeys, too. A change is in force at once when
  `Plausible.Webhooks.goals_changed/2` tells of the site, and without that when the
  site is read again: within a minute, with more than 200 sites that have webhooks a
  minute for every 200 of them.
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

  @typedoc "What may be told of a site's goal completions; of properties those that are keys."
  @type tells :: %{
          events: boolean(),
          props: :all | %{String.t() => true},
          revenue: boolean()
        }

  @typedoc """
  A goal as Plausible keeps it. `event_name` xor `page_path`; `scroll_threshold`
  is -1 for none; `custom_props` must all hold; `currency` is `nil` or `"EUR"`.
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

  @doc "The site, or `nil` when there is none (any more)."
  @callback site(arg(), site_id()) :: site() | nil

  @doc "The site with this domain, or `nil`."
  @callback site_by_domain(arg(), String.t()) :: site() | nil

  @doc "Every goal of the site (up to 1 000)."
  @callback goals(arg(), site_id()) :: [goal()]

  @doc """
  Unique visitors in each window, in the given order. Engagement events do not
  count as visits.
  """
  @callback visitors(arg(), site_id(), [window()]) ::
              {:ok, [non_neg_integer()]} | {:error, term()}

  @doc "Top sources and pages of the window, at most `limit` each, best first."
  @callback breakdown(arg(), site_id(), window(), limit :: pos_integer()) ::
              {:ok,
               %{
                 sources: [%{name: String.t(), visitors: non_neg_integer()}],
                 pages: [%{path: String.t(), visitors: non_neg_integer()}]
               }}
              | {:error, term()}

  @doc "May traffic alerts go out for this site now (locked teams, refused traffic)?"
  @callback alerts_allowed?(arg(), site_id()) :: boolean()

  @doc "Where the site's dashboard is; `nil` when there is none."
  @callback dashboard_url(arg(), site_id()) :: String.t() | nil

  @doc "May the actor do this with the site's webhooks? Asked on every call."
  @callback can?(arg(), actor(), action(), site_id()) :: boolean()

  @doc "Tells the owner that a webhook was disabled (`:gone` or `:failing`)."
  @callback webhook_disabled(arg(), Plausible.Webhooks.Webhook.t(), atom()) :: :ok

  @doc "Writes an entry into the host's audit log. Never holds secrets."
  @callback audit(arg(), actor(), action_name :: atom(), Plausible.Webhooks.Webhook.t()) :: :ok

  @doc """
  Counts one more of `key` in the host's own rate limiter. `:ok` as long as there are at most
  `limit` of them in `window_ms`, otherwise in how many milliseconds there is room. For a host
  without this callback each node counts by itself.
  """
  @callback check_rate(
              arg(),
              key :: String.t(),
              window_ms :: pos_integer(),
              limit :: pos_integer()
            ) ::
              :ok | {:error, retry_in_ms :: pos_integer()}

  @optional_callbacks check_rate: 4

  @doc """
  What may be told of a site's goal completions. Raises for a value of another shape: the host
  means to hold something back, but it is not known what.

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
