defmodule Plausible.Webhooks.Host do
  @moduledoc """
  What we ask the application around us (Plausible): sites, goals, visitors,
  permissions. Given at the start as `host: {module, argument}`; every callback
  gets that argument first.

  No callback is called on the path of an ingestion request.
  """

  @type arg :: term()
  @type site_id :: integer()
  @typedoc "Who wants to do something: the host's user, or `:system`."
  @type actor :: term()
  @type action :: :read | :manage
  @type site :: %{
          id: site_id(),
          domain: String.t(),
          timezone: String.t(),
          stats_start_at_ms: integer() | nil
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
  Counts one more of `key` in the host's own rate limiter: `:ok` as long as it is at most
  `limit` of them in `window_ms`, otherwise in how many milliseconds there is room again.
  A host without it is given a count of this node's own.
  """
  @callback check_rate(
              arg(),
              key :: String.t(),
              window_ms :: pos_integer(),
              limit :: pos_integer()
            ) ::
              :ok | {:error, retry_in_ms :: pos_integer()}

  @optional_callbacks check_rate: 4
end
