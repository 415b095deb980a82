defmodule Demo.Narrator do
  @moduledoc """
  An observer of the instance. It prints every attempt when it is recorded, and whether the
  receiver verified it.
  """

  @behaviour Plausible.Webhooks.Observer

  alias Demo.{Receiver, Screen}
  alias Plausible.Webhooks.Native

  @doc "Sets the webhooks by id. Attempts of others, left by an earlier demo, are not printed."
  def introduce(webhooks), do: :persistent_term.put(__MODULE__, webhooks)

  @impl true
  def handle_event(:attempt, timings, %{number: number} = attempt, %{own: own})
      when number > 0 do
    with %{name: name} <- :persistent_term.get(__MODULE__, %{})[attempt.webhook_id] do
      Screen.line("", "POST", :cyan, [
        "-> #{name}: #{outcome(attempt)}, attempt #{number}, ",
        timings(timings),
        verdict(own, attempt),
        next(attempt)
      ])

      with [{true, 200, body} | _] <- Receiver.received(attempt.delivery_id), do: content(body)
    end
  end

  def handle_event(:deliveries_dropped, %{count: count}, %{reason: reason}, _argument),
    do: Screen.line("", "DROPPED", :red, "#{count} deliveries: #{reason}")

  def handle_event(_event, _measurements, _metadata, _argument), do: :ok

  # The content of a traffic event, as the receiver got it.
  defp content(body) do
    with {:ok, %{"type" => "traffic." <> _ = type, "data" => data}} <- Native.decode(body) do
      Screen.line("", "received", :magenta, [
        "#{type} for #{data["site"]["domain"]}: #{data["current_visitors"]} visitors in ",
        "#{div(data["window_seconds"], 60)} min, threshold #{data["threshold"]}",
        baseline(data["baseline"])
      ])
    end
  end

  defp baseline(%{"visitors" => visitors, "change_percent" => change}),
    do: ", usual #{visitors} (#{if change, do: "#{change} %", else: "no comparison"})"

  defp baseline(nil), do: ""

  defp outcome(%{status: nil, error: error}), do: "#{error}"
  defp outcome(%{status: status}), do: "#{status}"

  defp timings(timings) do
    parts =
      for {key, name} <- [
            dns_us: "dns",
            connect_us: "connect",
            tls_us: "tls",
            first_byte_us: "first byte",
            total_us: "total"
          ],
          us = timings[key],
          do: "#{name} #{Float.round(us / 1_000, 1)} ms"

    Enum.join(parts, ", ")
  end

  defp verdict(false, _attempt), do: ""

  defp verdict(true, attempt) do
    case Enum.at(Receiver.received(attempt.delivery_id), attempt.number - 1) do
      {true, _status, _body} -> "; signature verified by the receiver"
      {false, _status, _body} -> "; SIGNATURE REFUSED by the receiver"
      nil -> "; not seen by the receiver"
    end
  end

  defp next(%{state: state, next_at_ms: at}) when state in [:pending, :parked] and at != nil do
    wait_ms = max(0, at - System.system_time(:millisecond))
    "; next in #{Float.round(wait_ms / 1_000, 1)} s"
  end

  defp next(_attempt), do: ""
end
