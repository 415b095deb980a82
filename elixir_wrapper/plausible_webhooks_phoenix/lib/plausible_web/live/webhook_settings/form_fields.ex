defmodule PlausibleWeb.Live.WebhookSettings.FormFields do
  @moduledoc false
  # The groups of fields in the form: events, goals, thresholds, interval and headers.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Plausible.Webhooks.Event
  alias PlausibleWeb.Live.WebhookSettings.{Form, Format, Labels, Redacted}

  @goals_shown 50

  def events(assigns) do
    ~H"""
    <.fields
      id="webhook-events"
      label="Events"
      help="Which events we send to this URL."
      error={Form.error(@form, :events)}
    >
      <input type="hidden" name="webhook[events][]" value="" />
      <.choice
        :for={type <- Event.subscribable_types()}
        id={"webhook-event-#{type}"}
        name="webhook[events][]"
        value={type}
        checked={type in @form.events}
      >
        <%= Labels.type(type) %>
        <code class="text-xs text-gray-600 dark:text-gray-300"><%= type %></code>
        <:help><%= Labels.type_help(type) %></:help>
      </.choice>
    </.fields>
    """
  end

  def goals(assigns) do
    ~H"""
    <.fields id="webhook-goals" label="Goals" error={Form.error(@form, :goals)}>
      <.choice
        :for={
          {value, text} <- [
            all: "All goals, including those added later",
            some: "Only chosen goals"
          ]
        }
        id={"webhook-goals-#{value}"}
        type="radio"
        name="webhook[goals]"
        value={to_string(value)}
        checked={@form.goals == value}
      >
        <%= text %>
      </.choice>
      <div :if={@form.goals == :some} class="mt-2 sm:ml-7">
        <.chosen_goals form={@form} goals={@goals} />
      </div>
    </.fields>
    """
  end

  defp chosen_goals(%{goals: nil} = assigns),
    do: ~H|<p class="text-sm text-gray-600 dark:text-gray-300">Loading …</p>|

  defp chosen_goals(%{goals: {:error, _reason}} = assigns) do
    ~H"""
    <.notice theme={:yellow}>
      The goals of this site cannot be read now. Your choice stays as it is.
    </.notice>
    """
  end

  defp chosen_goals(%{goals: []} = assigns) do
    ~H"""
    <.notice>
      This site has no goals yet. Add one under Goals. If you choose all goals here, the webhook
      then includes it.
    </.notice>
    """
  end

  defp chosen_goals(assigns) do
    %{form: form, goals: goals} = assigns
    {shown, more} = Form.shown_goals(form, goals, @goals_shown)
    missing = Form.missing(form, goals)
    chosen = MapSet.size(form.chosen) - missing
    assigns = assign(assigns, shown: shown, more: more, missing: missing, chosen: chosen)

    ~H"""
    <.text_field
      id="webhook-goal-search"
      label="Find a goal"
      type="search"
      form="webhook-search-form"
      name="search"
      value={@form.search}
      phx-change="form.search"
      maxlength="200"
    />
    <div class="mt-2 max-h-72 overflow-y-auto rounded-md border border-gray-300 dark:border-gray-600 px-3 py-1">
      <div :for={goal <- @shown}>
        <input type="hidden" name={"webhook[goal][#{goal.id}]"} value="false" />
        <.choice
          id={"webhook-goal-#{goal.id}"}
          name={"webhook[goal][#{goal.id}]"}
          value="true"
          checked={MapSet.member?(@form.chosen, goal.id)}
        >
          <.foreign text={goal.name} />
        </.choice>
      </div>
      <p :if={@shown == []} class="py-2 text-sm text-gray-700 dark:text-gray-200">
        No goal has this name.
      </p>
    </div>
    <p class="mt-1.5 text-sm text-gray-600 dark:text-gray-300" aria-live="polite">
      <%= Format.number(@chosen) %> of <%= Format.number(length(@goals)) %> goals chosen.
      <span :if={@more > 0}><%= Labels.count(@more, "more goal") %>; type to find them.</span>
      <span :if={@missing > 0}>
        Chosen goals that no longer exist: <%= Format.number(@missing) %>. Saving removes them.
      </span>
    </p>
    """
  end

  @thresholds %{
    spike:
      {"When does a spike begin?", "When at least this many visitors came in the last 5 minutes",
       "Visitors from which it is a spike", "5 minutes"},
    drop:
      {"When does a drop begin?", "When fewer visitors than this came in the last 12 hours",
       "Visitors below which it is a drop", "12 hours"}
  }

  def threshold(assigns) do
    {label, number, visitors, window} = @thresholds[assigns.kind]
    figure = figure(assigns.figures, assigns.kind, window)
    assigns = assign(assigns, label: label, number: number, visitors: visitors, figure: figure)

    ~H"""
    <.fields
      id={"webhook-#{@kind}"}
      label={@label}
      error={@error}
      error_id={"webhook-#{@kind}-value-error"}
    >
      <.threshold_choice kind={@kind} mode={:number} threshold={@threshold} text={@number} />
      <div :if={@threshold.mode == :number} class="sm:ml-7 mb-2">
        <label for={"webhook-#{@kind}-value"} class="sr-only"><%= @visitors %></label>
        <.input
          id={"webhook-#{@kind}-value"}
          name={"webhook[#{@kind}][value]"}
          value={@threshold.value}
          inputmode="numeric"
          maxlength="20"
          error={@error}
          describe={"webhook-#{@kind}-figure"}
          phx-debounce="300"
        />
        <p id={"webhook-#{@kind}-figure"} class="mt-1 text-sm text-gray-600 dark:text-gray-300">
          <%= @figure %>
        </p>
      </div>
      <.threshold_choice
        kind={@kind}
        mode={:notifier}
        threshold={@threshold}
        text="When this site's e-mail notification reports it"
      />
    </.fields>
    """
  end

  defp threshold_choice(assigns) do
    ~H"""
    <.choice
      id={"webhook-#{@kind}-#{@mode}"}
      type="radio"
      name={"webhook[#{@kind}][mode]"}
      value={to_string(@mode)}
      checked={@threshold.mode == @mode}
    >
      <%= @text %>
    </.choice>
    """
  end

  defp figure(nil, _kind, _window), do: "Loading …"
  defp figure({:error, _reason}, _kind, _window), do: "The current figure cannot be read now."

  defp figure(figures, kind, window),
    do: "Now: #{Labels.count(figures[kind].visitors, "visitor")} in the last #{window}."

  def interval(assigns) do
    ~H"""
    <.field
      id="webhook-interval"
      label="At most one spike and one drop"
      help="We send an alert once, and the next one only after traffic has been back to normal."
      error={Form.error(@form, :traffic_min_interval_s)}
    >
      <.select
        id="webhook-interval"
        name="webhook[interval]"
        value={@form.interval}
        options={Labels.intervals(seconds(@form.interval))}
        aria-describedby="webhook-interval-help"
      />
    </.field>
    """
  end

  defp seconds(text) do
    case Integer.parse(text) do
      {seconds, ""} -> seconds
      _other -> 0
    end
  end

  def headers(assigns) do
    rows = for {key, name, value} <- assigns.form.headers, do: {key, name, Redacted.wrap(value)}
    full? = length(rows) >= Form.headers_max()
    assigns = assign(assigns, rows: Enum.with_index(rows, 1), full?: full?)

    ~H"""
    <.fields
      id="webhook-headers"
      label="Extra headers"
      help="For example Authorization, if your endpoint expects a token. We send them with every request."
      error={Form.error(@form, :headers)}
    >
      <div :for={{{key, name, value}, index} <- @rows} class="mt-2 flex flex-wrap gap-2">
        <.header_input key={key} part="name" value={name} label={"Name of header #{index}"} />
        <.header_input key={key} part="value" value={value} label={"Value of header #{index}"} />
        <.button
          phx-click="form.remove_header"
          phx-value-key={key}
          aria-label={"Remove header #{index}"}
        >
          <span aria-hidden="true">✕</span>
        </.button>
      </div>
      <div class="mt-2">
        <.button id="webhook-add-header" phx-click="form.add_header" disabled={@full?}>
          Add a header
        </.button>
      </div>
    </.fields>
    """
  end

  @header_inputs %{"name" => {"Authorization", "200"}, "value" => {"Bearer …", "4200"}}

  defp header_input(assigns) do
    {placeholder, maxlength} = @header_inputs[assigns.part]
    assigns = assign(assigns, placeholder: placeholder, maxlength: maxlength)

    ~H"""
    <div class="flex-1 min-w-[8rem]">
      <label for={"webhook-header-#{@key}-#{@part}"} class="sr-only"><%= @label %></label>
      <.input
        id={"webhook-header-#{@key}-#{@part}"}
        name={"webhook[headers][#{@key}][#{@part}]"}
        value={Redacted.unwrap(@value)}
        placeholder={@placeholder}
        maxlength={@maxlength}
        phx-debounce="300"
      />
    </div>
    """
  end
end
