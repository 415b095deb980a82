defmodule PlausibleWeb.Live.WebhookSettings.Chart do
  @moduledoc false
  # Drawings in SVG, by attributes and classes alone; what they say is in their
  # labels, or beside them in numbers.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Texts, only: [t: 1]

  alias PlausibleWeb.Live.WebhookSettings.Format

  @height 32
  @step 6

  attr(:activity, :map, required: true)

  @doc "The last 24 hours: what failed or was cancelled stands on what was delivered."
  def hours(assigns) do
    max = assigns.activity.hours |> Enum.map(&(&1.delivered + lost(&1))) |> Enum.max(fn -> 0 end)

    bars = assigns.activity.hours |> Enum.with_index() |> Enum.map(&bar(&1, max))
    assigns = assign(assigns, bars: bars, label: label(assigns.activity), height: @height)

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
      <g :for={bar <- @bars}>
        <rect
          :if={bar.good > 0}
          x={bar.x}
          y={@height - bar.good}
          width="5"
          height={bar.good}
          class="fill-green-600 dark:fill-green-400"
        />
        <rect
          :if={bar.bad > 0}
          x={bar.x}
          y={@height - bar.good - bar.bad}
          width="5"
          height={bar.bad}
          class="fill-red-600 dark:fill-red-400"
        />
      </g>
    </svg>
    """
  end

  # Whatever there is can be seen: 2 px at least.
  defp bar({hour, index}, max),
    do: %{x: index * @step, good: scaled(hour.delivered, max), bad: scaled(lost(hour), max)}

  defp scaled(0, _max), do: 0
  defp scaled(count, max), do: max(div(count * (@height - 4), max), 2)

  defp lost(hour), do: hour.failed + hour.cancelled

  defp label(activity) do
    "Last 24 hours: #{Format.number(activity.delivered)} delivered, " <>
      "#{Format.number(activity.failed)} failed, #{Format.number(activity.cancelled)} cancelled"
  end

  attr(:attempt, :map, required: true)

  @doc "Where the time of an attempt went."
  def timing(assigns) do
    phases = phases(assigns.attempt)
    assigns = assign(assigns, phases: phases, total: assigns.attempt.total_us)

    ~H"""
    <div :if={@total}>
      <svg
        role="img"
        aria-label={"#{t(:timing)}: #{Format.us(@total)}"}
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
        <li><%= t(:timing_total) %> <span class="font-medium"><%= Format.us(@total) %></span></li>
        <li :if={@attempt.connect_us == nil and @attempt.first_byte_us != nil}>
          <%= t(:timing_reused) %>
        </li>
      </ul>
    </div>
    """
  end

  @phases [
    {:dns_us, :timing_dns, "fill-sky-500"},
    {:connect_us, :timing_connect, "fill-indigo-500"},
    {:tls_us, :timing_tls, "fill-purple-500"},
    {:first_byte_us, :timing_first_byte, "fill-amber-500"},
    {:total_us, :timing_rest, "fill-green-600"}
  ]

  # The ends of the phases are given; those that were not reached, or not needed,
  # are left out.
  defp phases(%{total_us: total} = attempt) when is_integer(total) do
    ends = for {key, name, class} <- @phases, us = Map.fetch!(attempt, key), do: {name, class, us}

    {phases, _at} =
      Enum.map_reduce(ends, 0, fn {name, class, us}, at ->
        until = us |> min(total) |> max(at)
        phase = %{name: t(name), class: class, us: until - at, x: share(at, total)}
        {Map.put(phase, :width, share(until - at, total)), until}
      end)

    phases
  end

  defp phases(_attempt), do: []

  defp share(_us, 0), do: 0
  defp share(us, total), do: div(us * 1_000, total)
end
