defmodule Plausible.Webhooks.Webhook do
  @moduledoc """
  One configured endpoint of one site.

  Times are Unix milliseconds. `secrets` are in clear only in memory: every
  store holds them encrypted by `Plausible.Webhooks.Vault`, and `inspect/1`
  shows neither them, nor header values, nor the URL's path and query.

      iex> alias Plausible.Webhooks.Webhook
      iex> {:ok, webhook} =
      ...>   Webhook.new(1, %{url: "https://example.com/hook", events: ["goal.completed"]})
      iex> {webhook.url, webhook.goals, Webhook.destination(webhook)}
      {"https://example.com/hook", :all, "example.com"}
      iex> Webhook.change(webhook, %{events: ["traffic.spike"]})
      {:error, %{spike_threshold: "is required for traffic.spike"}}
  """

  alias __MODULE__
  alias Plausible.Webhooks.Id
  alias Plausible.Webhooks.Webhook.{Attributes, Secrets}

  @typedoc "`wh_` and 26 characters."
  @type id :: String.t()
  @typedoc "One of `Plausible.Webhooks.Event.types/0`."
  @type event_type :: String.t()
  @typedoc "A secret in clear text, and the time until which it signs."
  @type secret :: Secrets.secret()
  @typedoc """
  Its receiver answered 410, has only failed for days, or took too much of the engine's time.
  """
  @type disabled_reason :: :gone | :failing | :costly

  @typedoc "A number of visitors, or `:notifier` to follow the host's own notifier."
  @type threshold :: pos_integer() | :notifier | nil

  @typedoc "What is wrong, by attribute."
  @type errors :: Attributes.errors()

  @typedoc "A webhook; see `new/3` for the attributes."
  @type t :: %Webhook{
          id: id(),
          site_id: integer(),
          name: String.t(),
          url: String.t(),
          enabled: boolean(),
          events: [event_type()],
          goals: :all | [integer()],
          spike_threshold: threshold(),
          drop_threshold: threshold(),
          traffic_min_interval_s: non_neg_integer(),
          headers: [{String.t(), String.t()}],
          secrets: [secret()],
          disabled_reason: disabled_reason() | nil,
          disabled_at_ms: integer() | nil,
          failing_since_ms: integer() | nil,
          version: non_neg_integer(),
          inserted_at_ms: integer(),
          updated_at_ms: integer()
        }

  # `enabled` is the user's choice; `disabled_reason` is why we disabled it.
  # A webhook delivers when it is enabled and has no disabled_reason. `version` grows with
  # every change; caches and the engine compare it. `updated_at_ms` is when the attributes were
  # last changed; pausing and resuming do not count.
  defstruct [
    :id,
    :site_id,
    :url,
    :spike_threshold,
    :drop_threshold,
    :disabled_reason,
    :disabled_at_ms,
    :failing_since_ms,
    :inserted_at_ms,
    :updated_at_ms,
    name: "",
    enabled: true,
    events: [],
    goals: :all,
    traffic_min_interval_s: 43_200,
    headers: [],
    secrets: [],
    version: 0
  ]

  @day_ms 86_400_000

  @doc """
  A webhook of the site, made from a user's attributes: a map or keyword list whose keys
  are atoms or strings. Values may come from a form (`"300"`, `"true"`).

    * `url` - required; `Plausible.Webhooks.Native.check_url/2` judges and normalizes it.
    * `events` - required: a non-empty list out of
      `Plausible.Webhooks.Event.subscribable_types/0`. `traffic.resolved` needs
      the spike or the drop that it ends.
    * `name` - at most 100 characters, no control characters.
    * `enabled` - default `true`.
    * `goals` - `:all` (default), `"all"`, or at most 1 000 goal ids.
    * `spike_threshold`, `drop_threshold` - visitors, 1 to 1 000 000 000, or
      `:notifier` (`"notifier"`): whenever the host's own notifier finds a spike or drop
      (`Plausible.Webhooks.traffic_change/4`). Required for a webhook that subscribes to
      that type.
    * `traffic_min_interval_s` - 0 to 7 days, by default 12 hours.
    * `headers` - at most 20, as `{name, value}`, `%{name: _, value: _}`, or a map
      of them; judged by `Plausible.Webhooks.Native.check_headers/1`.
    * `secret` - `whsec_` and the Base64 of 24 to 64 bytes; generated if it is not given.

  Options: `:policy` (of `check_url`, default `%{}`: the strictest), `:now_ms`,
  `:id`.

  The error holds everything that is wrong. Attributes that are neither a map nor a keyword
  list raise `ArgumentError`.
  """
  @spec new(integer(), map() | keyword(), keyword()) :: {:ok, t()} | {:error, errors()}
  def new(site_id, attrs, opts \\ [])

  def new(site_id, attrs, opts) when is_integer(site_id) do
    now_ms = System.system_time(:millisecond)
    opts = Keyword.validate!(opts, policy: %{}, now_ms: now_ms, id: Id.webhook(now_ms))

    webhook = %Webhook{
      id: opts[:id],
      site_id: site_id,
      url: "",
      inserted_at_ms: opts[:now_ms],
      updated_at_ms: opts[:now_ms]
    }

    required = [:url, :events]

    with {:ok, changes} <- Attributes.cast(webhook, attrs, opts[:policy], required, [:secret]),
         {key, changes} = Map.pop(changes, :secret),
         {:ok, secret} <- Secrets.new(key, opts[:now_ms]) do
      {:ok, struct!(webhook, Map.put(changes, :secrets, [secret]))}
    else
      {:error, errors} when is_map(errors) -> {:error, errors}
      {:error, _reason} -> {:error, %{secret: "could not be generated"}}
    end
  end

  def new(_site_id, _attrs, _opts), do: raise(ArgumentError, "the site id must be an integer")

  @doc """
  The webhook with some attributes changed; those not given stay. Attributes,
  errors and options as for `new/3`, except `secret` (see `rotate_secret/4`) and
  `:id`. The attribute `version` is the version that the user saw, for example in a form. If
  the webhook has another version by now, the error is `:stale`.
  """
  @spec change(t(), map() | keyword(), keyword()) :: {:ok, t()} | {:error, errors() | :stale}
  def change(webhook, attrs, opts \\ [])

  def change(%Webhook{} = webhook, attrs, opts) do
    opts = Keyword.validate!(opts, policy: %{}, now_ms: System.system_time(:millisecond))

    with {:ok, changes} <- Attributes.cast(webhook, attrs, opts[:policy], [], [:version]) do
      if Map.get(changes, :version, webhook.version) == webhook.version,
        do: {:ok, struct!(webhook, Map.put(changes, :updated_at_ms, opts[:now_ms]))},
        else: {:error, :stale}
    end
  end

  def change(_webhook, _attrs, _opts),
    do: raise(ArgumentError, "the first argument must be a webhook")

  @doc "Whether it delivers: its owner wants it, and we have not disabled it."
  @spec active?(t()) :: boolean()
  def active?(%Webhook{enabled: enabled, disabled_reason: reason}), do: enabled and reason == nil

  @doc """
  The host name of the URL: all of it that may be shown in logs and telemetry, since path and
  query may hold tokens.
  """
  @spec destination(t() | String.t()) :: String.t() | nil
  def destination(%Webhook{url: url}), do: destination(url)

  # URI.new/1 raises for bytes that are no text.
  def destination(url) when is_binary(url) do
    with true <- String.valid?(url),
         {:ok, %URI{host: host}} when host != "" <- url |> without_ellipsis() |> URI.new() do
      host
    else
      _other -> nil
    end
  end

  def destination(nil), do: nil

  # An actor who may only read gets the URL cut there.
  defp without_ellipsis(url), do: String.replace_suffix(url, "\u2026", "")

  # --- secrets

  @doc """
  Puts a new secret in front. The older ones go on signing for `overlap_ms` (0 to 7 days, 24
  hours by default), or until the end that an earlier rotation set, if that is sooner. With 0
  only the new secret signs. Expired secrets are removed.

  `key` is a secret of the customer's own; `nil` generates one. Errors:
  `:invalid_overlap`, `:invalid_secret`, `:duplicate_secret`, `:too_many_secrets`
  (more than 10: wait for older ones to expire, or choose a shorter overlap), and those of
  `Plausible.Webhooks.Native.generate_secret/0`.
  """
  @spec rotate_secret(t(), non_neg_integer(), integer(), String.t() | nil) ::
          {:ok, t()} | {:error, atom()}
  def rotate_secret(
        %Webhook{} = webhook,
        overlap_ms \\ @day_ms,
        now_ms \\ System.system_time(:millisecond),
        key \\ nil
      ) do
    with {:ok, secrets} <- Secrets.rotate(webhook.secrets, overlap_ms, now_ms, key),
         do: {:ok, %{webhook | secrets: secrets, updated_at_ms: now_ms}}
  end

  @doc "The secrets that sign now, newest first."
  @spec live_keys(t(), integer()) :: [secret()]
  def live_keys(%Webhook{secrets: secrets}, now_ms) when is_integer(now_ms),
    do: Secrets.live(secrets, now_ms)

  @doc "Whether this is a secret in the form that receivers' libraries take."
  @spec secret?(term()) :: boolean()
  defdelegate secret?(term), to: Secrets, as: :valid?
end

defimpl Inspect, for: Plausible.Webhooks.Webhook do
  import Inspect.Algebra

  alias Plausible.Webhooks.Webhook

  def inspect(%Webhook{} = webhook, opts) do
    shown = [
      id: webhook.id,
      site_id: webhook.site_id,
      name: webhook.name,
      destination: shown_destination(webhook),
      enabled: webhook.enabled,
      disabled_reason: webhook.disabled_reason,
      events: webhook.events,
      headers: header_names(webhook.headers),
      secrets: count(webhook.secrets),
      version: webhook.version
    ]

    concat(["#Plausible.Webhooks.Webhook<", to_doc(shown, opts), ">"])
  end

  # Must work whatever the fields hold.
  defp shown_destination(%Webhook{url: url}) when is_binary(url), do: Webhook.destination(url)
  defp shown_destination(_webhook), do: nil

  defp header_names(headers) when is_list(headers), do: for({name, _value} <- headers, do: name)
  defp header_names(_other), do: []

  defp count(secrets) when is_list(secrets), do: length(secrets)
  defp count(_other), do: 0
end
