defmodule PlausibleWeb.Live.WebhookSettings.Chart do
  @moduledoc false
  # SVG drawings without styles. Their labels, or the numbers beside them, say the same.

  use Phoenix.Component

  alias PlausibleWeb.Live.WebhookSettings.Format

  @height 32
  @step 6

  attr(:activity, :map, required: true)

  @doc "The last 24 hours: failed and cancelled deliveries stand on the delivered ones."
  def hours(assigns) do
    max = assigns.activity.hours |> Enum.map(&(&1.delivered + lost(&1))) |> Enum.max(fn -> 0 end)

    bars = assigns.activity.hours |> Enum.with_index() |> Enum.flat_map(&bars(&1, max))
    assigns = assign(assigns, bars: bars, label: label(assigns.activity))

    ~H"""
    <svg
      role="img"
      aria-label={@label}
      viewBox="0 0 144 33"
      preserveAspectRatio="none"
      class="h-9 w-36 max-w-full"
    >
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

  defp label(activity) do
    "Last 24 hours: #{Format.number(activity.delivered)} delivered, " <>
      "#{Format.number(activity.failed)} failed, #{Format.number(activity.cancelled)} cancelled"
  end

  attr(:attempt, :map, required: true)

  @doc "How the time of an attempt was spent."
  def timing(assigns) do
    phases = phases(assigns.attempt)
    assigns = assign(assigns, phases: phases, total: assigns.attempt.total_us)

    ~H"""
    <div :if={@total}>
      <svg
        role="img"
        aria-label={"#{"Timing"}: #{Format.us(@total)}"}
        viewBox="0 0 1000 10"
        preserveAspectRatio="none"
        class="h-3 w-full rounded bg-gray-100 dark:bg-gray-800"
      >
        <rect
          :for={phase <- @phases}
          x={phase.x}
          y="0"
          width={phase.width}
          height="10"
          class={phase.class}
        />
      </svg>
      <ul class="mt-2 flex flex-wrap gap-x-4 gap-y-1 text-xs text-gray-700 dark:text-gray-200">
        <li :for={phase <- @phases} class="inline-flex items-center gap-x-1.5">
          <svg class="h-2.5 w-2.5" viewBox="0 0 10 10" aria-hidden="true">
            <rect width="10" height="10" class={phase.class} />
          </svg>
          <span><%= phase.name %></span> <span class="font-medium"><%= Format.us(phase.us) %></span>
        </li>
        <li>Total <span class="font-medium"><%= Format.us(@total) %></span></li>
        <li :if={@attempt.connect_us == nil and @attempt.first_byte_us != nil}>
          An open connection was used again.
        </li>
      </ul>
    </div>
    """
  end

  @phases [
    {:dns_us, "Name lookup", "fill-sky-500"},
    {:connect_us, "Connection", "fill-indigo-500"},
    {:tls_us, "TLS handshake", "fill-purple-500"},
    {:first_byte_us, "Waiting for the answer", "fill-amber-500"},
    {:total_us, "Reading the answer", "fill-green-600"}
  ]

  # The attempt has the ends of its phases. Phases that were not needed or not reached are
  # nil, and are left out.
  defp phases(%{total_us: total} = attempt) when is_integer(total) do
    ends = for {key, name, class} <- @phases, us = Map.fetch!(attempt, key), do: {name, class, us}

    {phases, _at} =
      Enum.map_reduce(ends, 0, fn {name, class, us}, at ->
        until = us |> min(total) |> max(at)
        us = until - at
        {%{name: name, class: class, us: us, x: share(at, total), width: share(us, total)}, until}
      end)

    phases
  end

  defp phases(_attempt), do: []

  defp share(_us, 0), do: 0
  defp share(us, total), do: div(us * 1_000, total)
end
