defmodule Demo.Narrator do
  @moduledoc """
  An observer of the instance. It prints attempts when they are recorded, and whether the
  receiver verified them: all of them with `--verbose`, otherwise those of the first delivery
  of each webhook and those of traffic events.
  """

  @behaviour Plausible.Webhooks.Observer

  alias Demo.{Receiver, Screen}
  alias Plausible.Webhooks
  alias Plausible.Webhooks.Local.Text
  alias Plausible.Webhooks.Native

  # How long the day waits for the effects of an event.
  @settle_ms 500

  @doc "Makes its table. Call it before the instance starts."
  def start(verbose) do
    __MODULE__ = :ets.new(__MODULE__, [:named_table, :public])
    :ets.insert(__MODULE__, [{:verbose, verbose}, {:ended, 0}, {:webhooks, %{}}])
  end

  @doc "Sets the webhooks by id. Attempts of others, left by an earlier demo, are not printed."
  def introduce(webhooks), do: :ets.insert(__MODULE__, {:webhooks, webhooks})

  def verbose?, do: get(:verbose)

  @doc "Whether an attempt of this webhook would be its first one to be printed."
  def new?(webhook_id), do: not :ets.member(__MODULE__, {:story, webhook_id})

  @doc """
  Waits until each accepted delivery has been printed once, so that an effect follows its
  cause. Returns whether it came to that.
  """
  def settle(until_ms \\ System.monotonic_time(:millisecond) + @settle_ms) do
    %{outbox: outbox, accepted: accepted} = Webhooks.stats()

    cond do
      outbox == 0 and get(:ended) >= accepted -> true
      System.monotonic_time(:millisecond) > until_ms -> false
      true -> Process.sleep(1) && settle(until_ms)
    end
  end

  defp get(key), do: :ets.lookup_element(__MODULE__, key, 2)

  @impl true
  def handle_event(:attempt, timings, attempt, %{own: own}) do
    webhook = get(:webhooks)[attempt.webhook_id]
    if webhook && attempt.number > 0, do: told(webhook, timings, attempt, own)
    if webhook && attempt.number <= 1, do: :ets.update_counter(__MODULE__, :ended, 1)
  end

  def handle_event(:deliveries_dropped, %{count: count}, %{reason: reason}, _argument),
    do: Screen.line("", "DROPPED", :red, "#{count} deliveries: #{reason}")

  def handle_event(_event, _measurements, _metadata, _argument), do: :ok

  defp told(webhook, timings, attempt, own) do
    request = own && Enum.at(Receiver.received(attempt.delivery_id), attempt.number - 1)
    first = :ets.insert_new(__MODULE__, {{:story, attempt.webhook_id}, attempt.delivery_id})
    story = get({:story, attempt.webhook_id}) == attempt.delivery_id
    traffic = request && traffic(request.body)

    if get(:verbose) or story or traffic do
      if traffic && attempt.number == 1, do: Screen.line("", "alert", :red, traffic)

      Screen.line("", "POST", :cyan, [
        "-> #{webhook.name}: #{attempt.status || attempt.error}, attempt #{attempt.number}, ",
        timings(timings),
        verdict(own, request),
        next(attempt)
      ])

      if first, do: whole(request, webhook, attempt)
    end
  end

  # The first request of all, as it arrived. Only the receiver of the demo sees it arrive.
  defp whole(request, webhook, attempt) do
    if :ets.insert_new(__MODULE__, {:whole, true}) do
      request = request || rebuilt(webhook.site_id, attempt.delivery_id)
      if request, do: Screen.plain(Text.request(request.path, request.headers, request.body))
    end
  end

  defp rebuilt(site_id, id) do
    with {:ok, request} <- Webhooks.request(:system, site_id, id),
         do: Map.put(request, :path, request.url),
         else: (_gone -> nil)
  end

  # The content of a traffic event, as the receiver got it.
  defp traffic(body) do
    with {:ok, %{"type" => "traffic." <> _ = type, "data" => data}} <- Native.decode(body) do
      [
        "#{type} for #{data["site"]["domain"]}: #{data["current_visitors"]} visitors in ",
        "#{div(data["window_seconds"], 60)} min, threshold #{data["threshold"]}",
        baseline(data["baseline"])
      ]
    else
      _other -> nil
    end
  end

  defp baseline(%{"visitors" => visitors, "change_percent" => change}),
    do: ", usual #{visitors} (#{if change, do: "#{change} %", else: "no comparison"})"

  defp baseline(nil), do: ""

  defp timings(timings) do
    names = [
      dns_us: "dns",
      connect_us: "connect",
      tls_us: "tls",
      first_byte_us: "first byte",
      total_us: "total"
    ]

    parts =
      for {key, name} <- names, us = timings[key], do: "#{name} #{Float.round(us / 1_000, 1)}"

    Enum.join(parts, ", ") <> " ms"
  end

  defp verdict(false, _request), do: ""
  defp verdict(true, nil), do: "; not seen by the receiver"
  defp verdict(true, %{refused: nil}), do: "; signature verified"
  defp verdict(true, %{refused: reason}), do: "; SIGNATURE REFUSED: #{reason}"

  defp next(%{state: state, next_at_ms: at}) when state in [:pending, :parked] and at != nil do
    wait_ms = max(0, at - System.system_time(:millisecond))
    "; next in #{Float.round(wait_ms / 1_000, 1)} s"
  end

  defp next(_attempt), do: ""
end
