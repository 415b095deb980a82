defmodule PlausibleWeb.Live.WebhookSettings.Texts do
  @moduledoc false
  # Every text of the page; those about failures are in `Texts.Failures`. `%{name}`
  # is replaced by what is given. None is markup.

  alias PlausibleWeb.Live.WebhookSettings.Format

  @texts %{
    # --- the page
    title: "Webhooks",
    subtitle:
      "Signed POST requests to your own systems when a goal is completed or traffic changes.",
    lost:
      "You can no longer manage this site's webhooks. Ask an owner of the site if you should.",
    unavailable: "Webhooks cannot be shown at the moment. Reload the page in a while.",
    tab_webhooks: "Webhooks",
    tab_deliveries: "Deliveries",
    tabs: "Parts of the webhook settings",
    back_to_webhooks: "All webhooks",
    back_to_deliveries: "Back to the deliveries",
    close: "Close",
    cancel: "Cancel",
    refused: "That is not possible.",
    gone: "This webhook is not there any more.",
    delivery_gone: "This delivery is not there any more.",
    failed: "That did not work: the database did not answer. Try again in a moment.",
    crashed: "That did not work. Try again in a moment.",
    # --- the list
    add: "Add webhook",
    empty_title: "No webhooks yet",
    empty_text:
      "Have Plausible tell your systems at once when somebody signs up or buys, and when traffic spikes or drops. You need a URL that takes POST requests; everything else is two clicks.",
    limit_reached: "This site has as many webhooks as it may have. Delete one to add another.",
    unnamed: "Webhook for %{host}",
    open: "Open %{name}",
    success_24h: "Delivered in 24 h",
    success_none: "Nothing sent in 24 h",
    success_of: "%{percent} of %{total}",
    waiting_count: "%{count} waiting",
    last_delivery: "Last delivery",
    last_none: "None yet",
    loading: "Loading …",
    activity_failed: "The activity of the last 24 hours cannot be shown now.",
    incomplete: "counted over the newest deliveries only",
    # --- states
    state_active: "Active",
    state_paused: "Paused",
    state_failing: "Failing",
    state_disabled: "Switched off",
    failing_since:
      "Every attempt has failed since %{time}. If that goes on for days, the webhook is switched off.",
    paused_text: "Paused: events that happen now are not kept for it.",
    disabled_gone:
      "Switched off on %{time}, because your endpoint answered 410 (wants no more). A test that succeeds switches it on again.",
    disabled_failing:
      "Switched off on %{time}, because every attempt had failed for days. Fix the endpoint and send a test: a success switches it on again. What it missed can be sent then.",
    # --- the form
    form_new: "Add webhook",
    form_edit: "Edit %{name}",
    save_new: "Add webhook",
    save_edit: "Save changes",
    url_label: "URL",
    url_help:
      "Where we send POST requests with a JSON body. You can save it before anything answers there.",
    url_ok: "We will deliver to %{host}, port %{port}.",
    url_ok_punycode: "We will deliver to %{unicode} (written %{host} in DNS), port %{port}.",
    name_label: "Description",
    name_help: "Optional. How you recognize it, for example CRM.",
    events_label: "Events",
    events_help: "What is sent to this URL.",
    goals_label: "Goals",
    goals_all: "All goals, those that are added later too",
    goals_some: "Only chosen goals",
    goals_search: "Find a goal",
    goals_chosen: "%{count} of %{total} goals chosen.",
    goals_more: "%{count} more goals; type to find them.",
    goals_none_found: "No goal has this name.",
    goals_empty:
      "This site has no goals yet. Add one under Goals; with All goals it is sent without any further change.",
    goals_failed: "The goals of this site cannot be read now. The choice stays as it is.",
    goals_missing:
      "%{count} chosen that this site does not have any more; saving leaves them out.",
    spike_label: "When does a spike begin?",
    drop_label: "When does a drop begin?",
    threshold_notifier: "When the e-mail notification of this site says so",
    threshold_number_spike: "When this many visitors came in the last 5 minutes",
    threshold_number_drop: "When fewer visitors than this came in the last 12 hours",
    threshold_visitors_spike: "Visitors that make a spike",
    threshold_visitors_drop: "Visitors below which it is a drop",
    figure_spike: "Now: %{count} visitors in the last 5 minutes.",
    figure_drop: "Now: %{count} visitors in the last 12 hours.",
    figure_failed: "The current figure cannot be read now.",
    interval_label: "At most one spike and one drop",
    interval_help:
      "An alert comes once until traffic was back to normal, however often it is looked at.",
    headers_label: "Extra headers",
    headers_help:
      "For a token that your endpoint wants, for example Authorization. Sent with every request.",
    header_name: "Name of header %{n}",
    header_value: "Value of header %{n}",
    header_add: "Add a header",
    header_remove: "Remove header %{n}",
    secret_own_label: "Signing secret of your own",
    secret_own_help:
      "Optional: leave it empty and we make one. whsec_ followed by the Base64 of 24 to 64 bytes.",
    errors_title: "Not saved yet",
    changed_elsewhere:
      "Somebody else has changed this webhook in the meantime. Saving would put your values over theirs.",
    reload: "Load their values",
    created: "Webhook added. Copy its secret to your receiver, then send a test.",
    saved: "Saved. It counts from the next event.",
    stale: "Somebody else was changing it at the same time. Try again.",
    # --- one webhook
    edit: "Edit",
    pause: "Pause",
    resume: "Resume",
    switch_on: "Switch on",
    delete: "Delete",
    paused: "Paused.",
    paused_some: "Paused. %{count} that waited are cancelled, and can be sent again later.",
    paused_more:
      "Paused. More than %{count} that waited are cancelled, and can be sent again later.",
    resumed: "Active again.",
    delete_title: "Delete %{name}?",
    delete_text: "The webhook goes, and its log with it. This cannot be undone.",
    delete_waiting: "%{count} that wait now will be cancelled.",
    delete_waiting_none: "Nothing is waiting to be sent.",
    delete_confirm: "Delete webhook and log",
    deleted: "Webhook deleted.",
    settings: "Settings",
    see_deliveries: "See its deliveries",
    all_goals: "all goals",
    by_notifier: "as the e-mail notification says",
    # --- test
    test_title: "Send a test",
    test_text: "One POST now, whatever its state is; it is not repeated.",
    test_type: "What to send",
    test_send: "Send test",
    test_sending: "Sending … an endpoint has 15 seconds to answer.",
    test_sample: "Show the request body",
    test_sample_hide: "Hide the request body",
    test_wait: "That was many tests in a short time. The next one can go in %{wait}.",
    test_delivered: "Delivered: your endpoint answered %{status} after %{time}.",
    test_failed: "Not delivered: %{what}.",
    test_timeout: "Its turn did not come in time. The log will show what becomes of it.",
    test_not_sent: "Not sent. %{why}",
    test_ended: "It ended before its turn came: %{detail}.",
    test_unavailable: "The delivery engine is just starting. Try again in a moment.",
    test_revived: "The webhook is switched on again.",
    test_open: "Open in the log",
    answer: "Answer",
    answer_empty: "The answer had no body.",
    answer_cut: "cut after %{size}",
    meaning: "What it means",
    action: "What to do",
    timing: "Timing",
    timing_dns: "Name lookup",
    timing_connect: "Connection",
    timing_tls: "TLS handshake",
    timing_first_byte: "Waiting for the answer",
    timing_rest: "Reading the answer",
    timing_total: "Total",
    timing_reused: "An open connection was used again.",
    # --- secret
    secret_title: "Signing secret",
    secret_text:
      "Your receiver verifies with it that a request is from us. Whoever has it can pretend to be us; each look at it is recorded.",
    secret_reveal: "Reveal secret",
    secret_hide: "Hide secret",
    secret_copy_help: "Select the field and copy it: the keyboard's Tab selects all of it.",
    secret_current: "Secret",
    secret_old: "Older secret, signs until %{time} (%{left} left)",
    secret_overlap: "Two secrets sign now; the older one until %{time} (%{left} left).",
    rotate: "Replace secret",
    rotate_title: "Replace the secret",
    rotate_text:
      "The new secret signs from now on. For the time you choose the old one signs too, so that your receiver can change over without a gap.",
    rotate_overlap: "The old secret goes on signing for",
    rotate_confirm: "Replace now",
    rotate_emergency: "not at all (it has leaked)",
    rotate_emergency_text:
      "Requests will not pass verification until your receiver has the new secret.",
    rotated: "The secret is replaced. Give the new one to your receiver.",
    rotated_emergency:
      "The secret is replaced, and the old one signs no more. Give the new one to your receiver now.",
    too_many_secrets:
      "Too many secrets sign at the same time. Wait for older ones to end, or choose a shorter time.",
    invalid_overlap: "Choose one of the times.",
    copy: "Copy",
    # --- recover
    recover_title: "Send again what failed",
    recover_text:
      "Everything that failed or was cancelled since a moment goes out again, oldest first, under the same webhook-id.",
    recover_since: "Since (%{zone})",
    recover_count: "Count",
    recover_found: "%{count} to send again.",
    recover_found_more: "More than %{count} to send again; the oldest go first.",
    recover_none: "Nothing has failed since then.",
    recover_confirm: "Send %{count} again",
    recovered: "%{count} sent again.",
    recovered_more: "%{count} sent again; there are more. Send again once these are through.",
    recover_invalid: "Enter a date and a time.",
    webhook_disabled: "The webhook is switched off or paused. Switch it on first.",
    # --- the log
    log_title: "Deliveries",
    log_filters: "Filters",
    filter_webhook: "Webhook",
    filter_state: "State",
    filter_type: "Event",
    filter_goal: "Goal",
    filter_status: "Answer",
    filter_since: "From (%{zone})",
    filter_until: "Until (%{zone})",
    filter_any: "Any",
    filter_clear: "Clear filters",
    column_time: "Created",
    column_event: "Event",
    column_webhook: "Webhook",
    column_state: "State",
    column_attempts: "Attempts",
    column_answer: "Last answer",
    log_caption: "Deliveries, newest first",
    log_empty:
      "Nothing was sent yet. Send a test from a webhook's page to see how it looks here.",
    log_none: "No delivery fits these filters.",
    log_none_yet: "Nothing found so far; the search has come a long way and can go on.",
    log_further: "Search further back",
    log_newer: "Newer",
    log_older: "Older",
    log_pages: "Pages of deliveries",
    delivery_open: "Open the delivery of",
    # --- states of deliveries
    pending: "Sending",
    parked: "Waiting",
    delivered: "Delivered",
    cancelled: "Cancelled",
    delivery_failed: "Failed",
    next_attempt: "next attempt in %{wait}",
    next_attempt_now: "next attempt any moment",
    not_tried: "not tried yet",
    not_sent: "not sent",
    no_answer: "no answer",
    class_2: "2xx: arrived",
    class_3: "3xx: redirects",
    class_4: "4xx: refused",
    class_5: "5xx: server errors",
    class_none: "No answer",
    # --- one delivery
    delivery_id: "webhook-id",
    delivery_reason: "Why",
    redeliver: "Send again",
    redelivered: "On its way again.",
    attempts_title: "Attempts",
    attempts_none: "No attempt yet.",
    attempt_n: "Attempt %{n}",
    remote_ip: "Address",
    content_type: "Content type",
    request_title: "Request",
    request_body: "Body",
    request_url: "URL",
    request_text:
      "As it would be sent now: every attempt is signed anew with its own time. Requests older than five minutes are refused by receivers that verify.",
    request_show: "Show request, curl and verification code",
    request_hide: "Hide request",
    request_fresh: "Sign again with the time of now",
    request_gone:
      "The webhook is not there any more, so there is no URL and no secret to sign with.",
    curl_title: "Reproduce it with curl",
    sent_title: "What was sent",
    verify_code: "Code",
    verify_title: "Verify it in your language",
    verify_text:
      "Run it with the secret in the environment variable WEBHOOK_SECRET; it has the values of this delivery.",
    verify_language: "Language"
  }

  @types %{
    "goal.completed" => {"Goal completed", "A visitor completed a goal."},
    "traffic.spike" => {"Traffic spike", "Visitors of the last 5 minutes reached a number."},
    "traffic.drop" => {"Traffic drop", "Visitors of the last 12 hours fell below a number."},
    "traffic.resolved" =>
      {"Traffic back to normal",
       "A spike or drop is over. Needs one of them, with a number of visitors."},
    "webhook.test" => {"Test", "Nothing but a greeting."}
  }

  @fields %{
    name: "The description",
    url: "The URL",
    events: "Events",
    goals: "Goals",
    spike_threshold: "The spike's number of visitors",
    drop_threshold: "The drop's number of visitors",
    traffic_min_interval_s: "The interval",
    headers: "Extra headers",
    secret: "The secret",
    enabled: "The state"
  }

  @overlaps [
    {0, :rotate_emergency},
    {3_600, "1 hour"},
    {21_600, "6 hours"},
    {86_400, "24 hours"},
    {259_200, "3 days"},
    {604_800, "7 days"}
  ]
  @intervals [
    {0, "as often as it happens"},
    {3_600, "in 1 hour"},
    {21_600, "in 6 hours"},
    {43_200, "in 12 hours"},
    {86_400, "in 24 hours"},
    {604_800, "in 7 days"}
  ]

  @doc "The text of that name."
  @spec t(atom(), keyword() | map()) :: String.t()
  def t(key, given \\ []) do
    Enum.reduce(given, Map.fetch!(@texts, key), fn {name, value}, text ->
      String.replace(text, "%{#{name}}", to_string(value))
    end)
  end

  @doc "Every text, for whoever has to look through them."
  @spec all() :: %{atom() => String.t()}
  def all, do: @texts

  @doc "The name of an event type; of one that is not known, the type itself."
  @spec type(String.t()) :: String.t()
  def type(type), do: @types |> Map.get(type, {type, ""}) |> elem(0)

  @spec type_help(String.t()) :: String.t()
  def type_help(type), do: @types |> Map.get(type, {type, ""}) |> elem(1)

  @doc "What was said of an attribute, as a sentence. Extra headers are counted in it."
  @spec invalid(atom() | String.t(), String.t()) :: String.t()
  def invalid(:headers, "header " <> _ = text), do: "Extra headers: #{text}."
  def invalid(field, text), do: "#{Map.get(@fields, field, "What was given")} #{text}."

  @doc "How many deliveries, in words."
  @spec deliveries(non_neg_integer(), boolean()) :: String.t()
  def deliveries(count, more? \\ false)
  def deliveries(1, false), do: "1 delivery"
  def deliveries(count, false), do: "#{Format.number(count)} deliveries"
  def deliveries(count, true), do: "more than #{Format.number(count)} deliveries"

  @doc "How many goals, in words."
  @spec goals(non_neg_integer()) :: String.t()
  def goals(1), do: "1 goal"
  def goals(count), do: "#{Format.number(count)} goals"

  @doc "The times for which an old secret may go on signing: `{seconds, text}`."
  @spec overlaps() :: [{non_neg_integer(), String.t()}]
  def overlaps, do: Enum.map(@overlaps, fn {seconds, text} -> {seconds, named(text)} end)

  @doc "The intervals of alerts: `{seconds, text}`. One that is none of them is put in."
  @spec intervals(term()) :: [{non_neg_integer(), String.t()}]
  def intervals(seconds) do
    if is_integer(seconds) and seconds > 0 and not List.keymember?(@intervals, seconds, 0),
      do: Enum.sort([{seconds, "in #{Format.span(seconds * 1_000)}"} | @intervals]),
      else: @intervals
  end

  defp named(key) when is_atom(key), do: t(key)
  defp named(text), do: text

  @doc "The name of a delivery's state."
  @spec state(atom()) :: String.t()
  def state(:failed), do: t(:delivery_failed)
  def state(state), do: t(state)
end
