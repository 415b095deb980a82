defmodule Plausible.Webhooks.Manage.Overview do
  @moduledoc """
  What a settings page shows besides the webhooks and their log: the recent results of each
  webhook, the effect of a change, facts of the site, and requests as they are sent.

  Call these functions through `Plausible.Webhooks`, where the instance is optional and an
  error is an exception. The host has ten seconds for an answer. If it takes longer or fails,
  the reason says so: `:timeout`, `{:raised, text}` and others.

  Functions that ask the host or read the log may be slow: a live page calls them from a
  process of their own.
  """

  alias Plausible.Webhooks.{Delivery, Host, Id, Native, Store, Webhook}
  alias Plausible.Webhooks.Ingest.Goals
  alias Plausible.Webhooks.Ingest.Traffic.{Facts, Rules}
  alias Plausible.Webhooks.Manage.{Access, DeliveryLog, TestDelivery, Webhooks}
  alias Plausible.Webhooks.Runtime.{Instance, Isolated}
  alias Plausible.Webhooks.Webhook.URL

  @typedoc "How many deliveries ended in an hour, by state."
  @type hour :: %{
          at_ms: integer(),
          delivered: non_neg_integer(),
          failed: non_neg_integer(),
          cancelled: non_neg_integer()
        }

  @typedoc """
  `hours` are 24, the oldest first, each a whole hour in UTC that begins at `at_ms`;
  the last one is not over. `delivered`, `failed`, `cancelled` are their sums.
  Tests do not count.
  `complete?` is false if some hour had more deliveries than are counted (10 000, or fewer if
  many webhooks of the site have that many); the numbers are then minimums. `waiting` is the
  number of pending, parked and held deliveries, up to 10 000; with `waiting_more?` there are, or
  may be, more. `last` is the newest delivery, without its body; `nil` if there is none, or,
  on SQLite, none among the site's newest 100 000.
  """
  @type activity :: %{
          hours: [hour()],
          delivered: non_neg_integer(),
          failed: non_neg_integer(),
          cancelled: non_neg_integer(),
          complete?: boolean(),
          waiting: 0..10_000,
          waiting_more?: boolean(),
          last: Delivery.t() | nil
        }

  @typedoc "By webhook."
  @type activities :: %{Webhook.id() => activity()}

  @typedoc "A number of deliveries. With `more?` there are, or may be, more."
  @type count :: %{count: non_neg_integer(), more?: boolean()}

  @typedoc "The visitors that thresholds are compared with."
  @type figures :: %{
          spike: %{visitors: non_neg_integer(), window_seconds: pos_integer()},
          drop: %{visitors: non_neg_integer(), window_seconds: pos_integer()}
        }

  @typedoc "A URL that may be saved, and its parts."
  @type checked_url :: %{
          url: String.t(),
          scheme: String.t(),
          host: String.t(),
          host_unicode: String.t() | nil,
          port: 1..65_535
        }

  @typedoc "A POST."
  @type request :: %{
          url: String.t(),
          headers: [{name :: String.t(), value :: String.t()}],
          body: binary(),
          timestamp: integer()
        }

  @typedoc """
  The request headers of an attempt, in order. They are `complete?` unless the webhook was
  changed or deleted since; then the signature and the owner's own headers are not known.
  """
  @type sent :: %{headers: [{name :: String.t(), value :: String.t()}], complete?: boolean()}

  @typedoc "The reason, as in `Plausible.Webhooks.Error`."
  @type error :: {:error, term()}

  @hour_ms 3_600_000
  @hours 24
  @ended [:delivered, :failed, :cancelled]
  # The time that the host has for one answer.
  @host_ms 10_000

  # --- recent results

  @doc """
  How the deliveries of each of the site's webhooks ended in the last 24 hours, by the time
  at which they ended. Needs `:read`.

      {:ok, %{"wh_01J..." => %{delivered: 1204, failed: 3, hours: hours, waiting: 0}}} =
        Plausible.Webhooks.activity(user, site.id)

      length(hours)
      #=> 24
  """
  @spec activity(Instance.t(), Host.actor(), integer()) ::
          {:ok, activities()} | error()
  def activity(instance, actor, site_id) do
    with :ok <- Access.check(instance, actor, :read, site_id),
         {:ok, webhooks} <- Store.list_webhooks(instance, site_id),
         ids = Enum.map(webhooks, & &1.id),
         last_ms = div(Store.now_ms(instance), @hour_ms) * @hour_ms,
         first_ms = last_ms - (@hours - 1) * @hour_ms,
         {:ok, figures} <- Store.activity(instance, site_id, ids, first_ms),
         {:ok, waiting} <- Store.waiting(instance, ids) do
      hours = for n <- 0..(@hours - 1), do: first_ms + n * @hour_ms
      {:ok, Map.new(ids, &{&1, of_one(hours, figures[&1], waiting[&1])})}
    end
  end

  defp of_one(hours, figures, waiting) do
    # If a clock was fast, a delivery may have ended in a future hour; it counts as of now.
    last_ms = List.last(hours)

    counts =
      for {{at_ms, state}, n} <- figures.finished, reduce: %{} do
        counts -> Map.update(counts, {min(at_ms, last_ms), state}, n, &(&1 + n))
      end

    hours =
      for at_ms <- hours do
        for state <- @ended, into: %{at_ms: at_ms}, do: {state, counts[{at_ms, state}] || 0}
      end

    for state <- @ended, into: more(figures, waiting) do
      {state, hours |> Enum.map(& &1[state]) |> Enum.sum()}
    end
    |> Map.put(:hours, hours)
  end

  defp more(figures, waiting) do
    %{
      complete?: figures.complete?,
      last: figures.last,
      waiting: waiting.count,
      waiting_more?: waiting.more?
    }
  end

  @doc """
  How many deliveries wait for this webhook. They are lost if it is deleted, and held while it
  is paused. At most 10 000 are counted; with `more?` there are, or may be, more.
  Needs `:manage`.

      {:ok, %{count: 12, more?: false}} =
        Plausible.Webhooks.waiting(user, site.id, webhook.id)
  """
  @spec waiting(Instance.t(), Host.actor(), integer(), Webhook.id()) ::
          {:ok, count()} | error()
  def waiting(instance, actor, site_id, id) do
    with :ok <- Access.check(instance, actor, :manage, site_id),
         {:ok, _webhook} <- Access.webhook(instance, site_id, id),
         {:ok, %{^id => waiting}} <- Store.waiting(instance, [id]),
         do: {:ok, waiting}
  end

  @doc """
  How many deliveries `Plausible.Webhooks.recover/5` would send again, even if the webhook has
  to be switched on first. With `more?`, one call would not send all of them. Needs `:manage`.

      {:ok, %{count: 87, more?: false}} =
        Plausible.Webhooks.recoverable(user, site.id, webhook.id, ~U[2026-11-23 00:00:00Z])
  """
  @spec recoverable(
          Instance.t(),
          Host.actor(),
          integer(),
          Webhook.id(),
          DateTime.t() | integer()
        ) :: {:ok, count()} | error()
  def recoverable(instance, actor, site_id, id, since) do
    with :ok <- Access.check(instance, actor, :manage, site_id),
         {:ok, _webhook} <- Access.webhook(instance, site_id, id),
         {:ok, ids, more?} <- DeliveryLog.recoverable(instance, id, since),
         do: {:ok, %{count: length(ids), more?: more?}}
  end

  # --- what the site is like

  @doc """
  The site, as the host knows it. Needs `:read`.

      {:ok, %{domain: "example.com"}} = Plausible.Webhooks.site(user, site.id)
  """
  @spec site(Instance.t(), Host.actor(), integer()) :: {:ok, Host.site()} | error()
  def site(instance, actor, site_id) do
    ask_host(instance, actor, site_id, fn ->
      case Instance.host(instance, :site, [site_id]) do
        nil -> {:error, :not_found}
        %{domain: _domain} = site -> {:ok, site}
      end
    end)
  end

  @doc """
  The site's goals, by name. Invalid goals (`t:Plausible.Webhooks.Host.goal/0`) are left out,
  as when events are matched. Needs `:read`.

      {:ok, [%{id: 12, name: "Signup"} | _]} = Plausible.Webhooks.goals(user, site.id)
  """
  @spec goals(Instance.t(), Host.actor(), integer()) :: {:ok, [Host.goal()]} | error()
  def goals(instance, actor, site_id) do
    ask_host(instance, actor, site_id, fn ->
      goals = instance |> Instance.host(:goals, [site_id]) |> Enum.filter(&Goals.goal?/1)
      {:ok, Enum.sort_by(goals, &{String.downcase(&1.name), &1.name, &1.id})}
    end)
  end

  @doc """
  The current figures that are compared with the thresholds: the unique visitors of the last 5
  minutes and of the last 12 hours. Needs `:read`.

      {:ok, %{spike: %{visitors: 41, window_seconds: 300}, drop: %{visitors: 2210}}} =
        Plausible.Webhooks.figures(user, site.id)
  """
  @spec figures(Instance.t(), Host.actor(), integer()) ::
          {:ok, figures()} | error()
  def figures(instance, actor, site_id) do
    ask_host(instance, actor, site_id, fn ->
      kinds = [:spike, :drop]
      now_ms = Instance.now_ms()
      windows = Enum.map(kinds, &Rules.window(&1, now_ms))

      with {:ok, counts} <- Facts.visitors(instance, site_id, windows),
           do: {:ok, Map.new(Enum.zip_with([kinds, windows, counts], &figure/1))}
    end)
  end

  defp figure([kind, {from_ms, to_ms}, visitors]),
    do: {kind, %{visitors: visitors, window_seconds: div(to_ms - from_ms, 1_000)}}

  # Whatever the host does, whoever looks at the page gets an answer.
  defp ask_host(instance, actor, site_id, fun) do
    with :ok <- Access.check(instance, actor, :read, site_id),
         do: Isolated.run(instance, fun, @host_ms)
  end

  @doc """
  Whether the actor may do this, so that a page can show or hide it. Every other function
  checks the permission too. `:forbidden` means no; after any other error the answer is
  unknown.

      :ok = Plausible.Webhooks.permission(user, :manage, site.id)
  """
  @spec permission(Instance.t(), Host.actor(), Host.action(), integer()) ::
          :ok | {:error, :forbidden} | error()
  def permission(instance, actor, action, site_id) when action in [:read, :manage],
    do: Isolated.guard(fn -> Access.check(instance, actor, action, site_id) end)

  # --- requests

  @doc """
  Judges a URL by the instance's policy, with the same errors as saving it. `host_unicode` is
  the Unicode form of an international host, `nil` for any other host. Reads neither store nor
  host.

      {:ok, %{url: "https://xn--bcher-kva.example/", host_unicode: "bücher.example"}} =
        Plausible.Webhooks.check_url("https://bücher.example")

      {:error, "must begin with https://"} = Plausible.Webhooks.check_url("http://example.com/")
  """
  @spec check_url(Instance.t(), term()) ::
          {:ok, checked_url()} | {:error, String.t()}
  def check_url(instance, text), do: URL.check(text, instance.options.policy)

  @doc """
  The POST of a delivery as it would be sent now: its URL, its headers in the order in which
  they are sent, and its body. It is signed with the secrets that sign now, for `timestamp`
  (Unix seconds). Needs `:manage`, since URL and headers may hold tokens; a look at own headers
  is written to both audit logs.

      {:ok, %{url: url, headers: headers, body: body}} =
        Plausible.Webhooks.request(user, site.id, "msg_01J...")

      List.keyfind(headers, "webhook-id", 0)
      #=> {"webhook-id", "msg_01J..."}

  Returns `{:error, :not_found}` also if its webhook is deleted.
  """
  @spec request(Instance.t(), Host.actor(), integer(), String.t()) ::
          {:ok, request()} | error()
  def request(instance, actor, site_id, delivery_id) do
    with :ok <- Access.check(instance, actor, :manage, site_id),
         {:ok, delivery} <- Access.delivery(instance, site_id, delivery_id),
         {:ok, webhook} <- Access.webhook(instance, site_id, delivery.webhook_id),
         do: signed(instance, actor, webhook, delivery.id, delivery.body)
  end

  defp signed(instance, actor, webhook, id, body) do
    timestamp = div(Instance.now_ms(), 1_000)

    with :ok <- reveal(instance, actor, webhook, webhook.headers != []),
         {:ok, signature} <- signature(webhook, id, timestamp, body) do
      headers = headers(instance, id, timestamp) ++ signature ++ webhook.headers
      {:ok, %{url: webhook.url, headers: headers, body: body, timestamp: timestamp}}
    end
  end

  defp reveal(_instance, _actor, _webhook, false), do: :ok

  defp reveal(instance, actor, webhook, true),
    do: Webhooks.reveal(instance, actor, :webhook_headers_revealed, webhook)

  defp signature(webhook, id, timestamp, body) do
    keys = webhook |> Webhook.live_keys(timestamp * 1_000) |> Enum.map(& &1.key)

    with {:ok, signature} <- Native.sign(keys, id, timestamp, body),
         do: {:ok, [{"webhook-signature", signature}]}
  end

  defp headers(instance, id, timestamp) do
    [
      {"content-type", "application/json"},
      {"user-agent", user_agent(instance)},
      {"webhook-id", id},
      {"webhook-timestamp", Integer.to_string(timestamp)}
    ]
  end

  defp user_agent(%Instance{options: %{user_agent: nil}}),
    do: "Plausible-Webhooks/#{Application.spec(:plausible_webhooks, :vsn)}"

  defp user_agent(%Instance{options: %{user_agent: text}}), do: text

  @doc """
  The request headers of each attempt of a delivery as they were sent, in the order of
  `Plausible.Webhooks.attempts/4`; none of an attempt that sent no request. The values of the
  owner's own headers are hidden unless `reveal?`, which is written to both audit logs. Needs
  `:manage`.

  Nothing of this is stored but the time of the signature. The rest follows from the delivery and
  its webhook, as long as the webhook was not changed (`t:sent/0`); `user-agent` is that of the
  version that runs now.
  """
  @spec sent(Instance.t(), Host.actor(), integer(), String.t(), boolean()) ::
          {:ok, [sent()]} | error()
  def sent(instance, actor, site_id, delivery_id, reveal?) do
    with :ok <- Access.check(instance, actor, :manage, site_id),
         {:ok, delivery} <- Access.delivery(instance, site_id, delivery_id),
         {:ok, attempts} <- Store.attempts(instance, delivery_id),
         {:ok, webhook} <- still_there(instance, delivery),
         :ok <- reveal(instance, actor, webhook, reveal? and webhook != nil) do
      {:ok, Enum.map(attempts, &sent_headers(instance, webhook, delivery, &1, reveal?))}
    end
  end

  defp still_there(instance, delivery) do
    with {:error, :not_found} <- Store.get_webhook(instance, delivery.webhook_id), do: {:ok, nil}
  end

  defp sent_headers(_instance, _webhook, _delivery, %{signed_at_s: nil}, _reveal?),
    do: %{headers: [], complete?: true}

  defp sent_headers(instance, webhook, %{id: id, body: body}, attempt, reveal?) do
    ours = headers(instance, id, attempt.signed_at_s)

    with %Webhook{updated_at_ms: changed_ms} <- webhook,
         true <- changed_ms <= attempt.started_at_ms,
         {:ok, signature} <- signature(webhook, id, attempt.signed_at_s, body) do
      host = [{"host", authority(webhook.url)}, {"accept", "*/*"}]
      length = [{"content-length", Integer.to_string(byte_size(body))}]
      own = if reveal?, do: webhook.headers, else: Webhooks.hidden(webhook.headers)
      %{headers: host ++ ours ++ signature ++ own ++ length, complete?: true}
    else
      _changed_or_gone -> %{headers: ours, complete?: false}
    end
  end

  defp authority(url) do
    uri = URI.parse(url)
    host = if uri.host =~ ":", do: "[#{uri.host}]", else: uri.host
    if uri.port == URI.default_port(uri.scheme), do: host, else: "#{host}:#{uri.port}"
  end

  @doc """
  The POST that `Plausible.Webhooks.send_test/5` of this type would send now, signed, under
  an id of its own. Needs `:manage`.

      {:ok, %{url: url, headers: headers, body: "{" <> _json}} =
        Plausible.Webhooks.sample(user, site.id, webhook.id, "goal.completed")
  """
  @spec sample(Instance.t(), Host.actor(), integer(), Webhook.id(), String.t()) ::
          {:ok, request()} | error()
  def sample(instance, actor, site_id, id, type) do
    with {:ok, webhook, body} <- TestDelivery.sample(instance, actor, site_id, id, type),
         do: signed(instance, actor, webhook, Id.delivery(Instance.now_ms()), body)
  end
end
