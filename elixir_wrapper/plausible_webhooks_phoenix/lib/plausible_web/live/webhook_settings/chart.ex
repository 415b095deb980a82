defmodule PlausibleWeb.Live.WebhookSettings.Chart do
  @moduledoc false
  # SVG drawings without styles. Their labels, or the numbers beside them, say the same.

  use Phoenix.Component

  alias PlausibleWeb.Live.WebhookSettings.Format

  @height 32
  @step 6

  @doc "The last 24 hours: failed and cancelled deliveries stand on the delivered ones."
  def hours(assigns) do
    max = assigns.activity.hours |> Enum.map(&(&1.delivered + lost(&1))) |> Enum.max(fn -> 0 end)

    bars = assigns.activity.hours |> Enum.with_index() |> Enum.flat_map(&bars(&1, max))
    assigns = assign(assigns, bars: bars, label: label(assigns.activity, max))

    ~H"""
    <svg
      role="img"
      aria-label={@label}
      viewBox="0 0 144 33"
      preserveAspectRatio="none"
      class="h-8 w-28 shrink-0"
    >
      <title><%= @label %></title>
      <line
        x1="0"
        y1="32.5"
        x2="144"
        y2="32.5"
        class="stroke-gray-300 dark:stroke-gray-600"
        stroke-width="1"
      />
      <rect :for={{x, y, height, class} <- @bars} x={x} y={y} width="5" height={height} class={class} />
    </svg>
    """
  end

  defp bars({hour, index}, max) do
    good = scaled(hour.delivered, max)
    bad = scaled(lost(hour), max)

    for {y, height, class} <- [
          {@height - good, good, "fill-green-600 dark:fill-green-400"},
          {@height - good - bad, bad, "fill-red-600 dark:fill-red-400"}
        ],
        height > 0,
        do: {index * @step, y, height, class}
  end

  # At least 2 px, so that a single delivery is visible.
  defp scaled(0, _max), do: 0
  defp scaled(count, max), do: max(div(count * (@height - 4), max), 2)

  defp lost(hour), do: hour.failed + hour.cancelled

  # The chart has no axis: the tooltip says how high the highest bar is.
  defp label(activity, max) do
    "Last 24 hours: #{Format.number(activity.delivered)} delivered, " <>
      "#{Format.number(activity.failed)} failed, #{Format.number(activity.cancelled)} cancelled; " <>
      "at most #{Format.number(max)} in an hour"
  end

  @doc "How the time of an attempt was spent, and in which phase a failed one ended."
  def timing(assigns) do
    phases = phases(assigns.attempt)
    total = Format.us(assigns.attempt.total_us)
    spoken = Enum.map_join(phases, ", ", &"#{&1.name} #{Format.us(&1.us)}")

    assigns =
      assign(assigns, phases: phases, total: total, label: "Timing: #{spoken}; total #{total}")

    ~H"""
    <div :if={@phases != []}>
      <svg
        role="img"
        aria-label={@label}
        viewBox="0 0 1000 10"
        preserveAspectRatio="none"
        class="h-3 w-full rounded-sm bg-gray-100 dark:bg-gray-800"
      >
        <rect :for={phase <- @phases} x={phase.x} width={phase.width} height="10" class={phase.class} />
      </svg>
      <ul class="mt-2 flex flex-wrap gap-x-4 gap-y-1 text-xs text-gray-600 dark:text-gray-300" dir="ltr">
        <li :for={phase <- @phases} class="inline-flex items-center gap-x-1.5">
          <svg class="size-2.5" viewBox="0 0 10 10" aria-hidden="true">
            <rect width="10" height="10" class={phase.class} />
          </svg>
          <span><%= phase.name %></span> <span class="font-medium"><%= Format.us(phase.us) %></span>
          <span :if={phase.failed?} class="text-red-700 dark:text-red-400">failed here</span>
        </li>
        <li>Total <span class="font-medium"><%= @total %></span></li>
        <li :if={@attempt.connect_us == nil and @attempt.first_byte_us != nil}>
          An open connection was used again.
        </li>
      </ul>
    </div>
    """
  end

  @phases [
    dns_us: {"Name lookup", "fill-sky-500"},
    connect_us: {"Connection", "fill-indigo-500"},
    tls_us: {"TLS handshake", "fill-purple-500"},
    first_byte_us: {"Waiting for the answer", "fill-amber-500"},
    total_us: {"Reading the answer", "fill-green-600"}
  ]

  # Where an attempt ended that has no status. For any other class it was the phase after the
  # last one that is known to have ended.
  @ends %{
    dns_error: :dns_us,
    dns_timeout: :dns_us,
    blocked_address: :connect_us,
    connection_refused: :connect_us,
    connect_timeout: :connect_us,
    network_unreachable: :connect_us,
    tls_error: :tls_us,
    tls_timeout: :tls_us
  }

  # The attempt has the ends of its phases. Phases that were not needed or not reached are
  # nil, and are left out; the last one lasts until the total.
  defp phases(%{total_us: total} = attempt) when is_integer(total) do
    last = last(attempt)

    ends =
      for {key, {name, class}} <- @phases,
          key == last or (key != :total_us and Map.fetch!(attempt, key)) do
        {key, name, class, if(key == last, do: total, else: Map.fetch!(attempt, key))}
      end

    {phases, _at} =
      Enum.map_reduce(ends, 0, fn {key, name, class, us}, at ->
        until = us |> min(total) |> max(at)
        failed? = key == last and attempt.error != nil and attempt.status == nil
        phase = %{name: name, class: class, us: until - at, failed?: failed?}
        {Map.merge(phase, %{x: share(at, total), width: share(until - at, total)}), until}
      end)

    phases
  end

  defp phases(_attempt), do: []

  defp last(%{status: status}) when status != nil, do: :total_us
  defp last(%{error: error}) when is_map_key(@ends, error), do: @ends[error]
  defp last(%{first_byte_us: us}) when us != nil, do: :total_us
  defp last(_attempt), do: :first_byte_us

  defp share(_us, 0), do: 0
  defp share(us, total), do: div(us * 1_000, total)
end
