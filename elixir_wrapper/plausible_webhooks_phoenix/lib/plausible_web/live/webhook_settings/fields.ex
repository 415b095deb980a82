defmodule PlausibleWeb.Live.WebhookSettings.Fields do
  @moduledoc false
  # The groups of fields in the form: URL, events, goals, thresholds, interval and headers.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components

  alias Plausible.Webhooks.Event
  alias PlausibleWeb.Live.WebhookSettings.{ForeignText, FormData, Format, Labels, Redacted}

  @goals_shown 50

  def url(assigns) do
    assigns = assign(assigns, error: FormData.error(assigns.errors, :url))

    ~H"""
    <.text_field
      id="webhook-url"
      label="URL"
      help="Where we send POST requests with a JSON body. You can save it before anything answers there."
      error={@error}
      type="url"
      name="webhook[url]"
      value={@form.params["url"]}
      describe="webhook-url-check"
      inputmode="url"
      maxlength="2100"
      required
      phx-debounce="300"
    >
      <div id="webhook-url-check" aria-live="polite" class="mt-1.5 text-sm break-words">
        <%!-- The error of the last save is below the field already. --%>
        <.url_check :if={@error == nil} check={@check} />
      </div>
      <p :if={@test_address?} class="mt-1.5 text-sm text-gray-600 dark:text-gray-300">
        No endpoint yet?
        <.text_link id="webhook-test-address" phx-click="test_address">Use a test address</.text_link>
        on this installation. It shows what arrives, and is good for an hour.
      </p>
    </.text_field>
    """
  end

  defp url_check(%{check: {:ok, %{host: host, port: port, host_unicode: unicode}}} = assigns) do
    name = if unicode, do: "#{ForeignText.line(unicode)} (written #{host} in DNS)", else: host
    assigns = assign(assigns, name: name, port: port)

    ~H"""
    <p class="text-green-800 dark:text-green-400">
      We will deliver to <%= @name %>, port <%= @port %>.
    </p>
    """
  end

  defp url_check(%{check: {:error, text}} = assigns) do
    assigns = assign(assigns, text: Labels.invalid(:url, text))
    ~H|<p class="text-red-700 dark:text-red-400"><%= @text %></p>|
  end

  defp url_check(assigns), do: ~H""

  def events(assigns) do
    ~H"""
    <.fields
      id="webhook-events"
      label="Events"
      help="Which events we send to this URL."
      error={FormData.error(@errors, :events)}
    >
      <input type="hidden" name="webhook[events][]" value="" />
      <.choice
        :for={type <- Event.subscribable_types()}
        id={"webhook-event-#{type}"}
        name="webhook[events][]"
        value={type}
        checked={FormData.event?(@form, type)}
      >
        <%= Labels.type(type) %>
        <:help><%= Labels.type_help(type) %></:help>
      </.choice>
    </.fields>
    """
  end

  def goals(assigns) do
    choices = [{"all", "All goals, including those added later"}, {"some", "Only chosen goals"}]
    assigns = assign(assigns, choices: choices)

    ~H"""
    <.fields id="webhook-goals" label="Goals" error={FormData.error(@errors, :goals)}>
      <.choice
        :for={{value, text} <- @choices}
        id={"webhook-goals-#{value}"}
        type="radio"
        name="webhook[goals]"
        value={value}
        checked={@form.params["goals"] == value}
      >
        <%= text %>
      </.choice>
      <div :if={@form.params["goals"] == "some"} class="mt-2 sm:ml-7">
        <.chosen_goals form={@form} goals={@goals} />
      </div>
    </.fields>
    """
  end

  defp chosen_goals(%{goals: nil} = assigns),
    do: ~H|<p class="text-sm text-gray-500 dark:text-gray-400">Loading …</p>|

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
    {shown, more} = FormData.shown_goals(form, goals, @goals_shown)
    chosen = FormData.chosen(form)
    hidden = MapSet.difference(chosen, MapSet.new(shown, & &1.id))
    missing = chosen |> MapSet.difference(MapSet.new(goals, & &1.id)) |> MapSet.size()

    assigns =
      assign(assigns, shown: shown, more: more, missing: missing, hidden: hidden, chosen: chosen)

    ~H"""
    <.text_field
      id="webhook-goal-search"
      label="Find a goal"
      type="search"
      form="webhook-search-form"
      name="search"
      value={@form.search}
      phx-change="search"
      maxlength="200"
    />
    <%!-- So that the browser holds the whole choice. --%>
    <input :for={id <- @hidden} type="hidden" name={"webhook[goal][#{id}]"} value="true" />
    <div class="mt-2 max-h-72 overflow-y-auto rounded-md border border-gray-300 dark:border-gray-600 px-3 py-1">
      <div :for={goal <- @shown}>
        <input type="hidden" name={"webhook[goal][#{goal.id}]"} value="false" />
        <.choice
          id={"webhook-goal-#{goal.id}"}
          name={"webhook[goal][#{goal.id}]"}
          value="true"
          checked={goal.id in @chosen}
        >
          <.foreign text={goal.name} />
        </.choice>
      </div>
      <p :if={@shown == []} class="py-2 text-sm">No goal has this name.</p>
    </div>
    <p class="mt-1.5 text-sm text-gray-500 dark:text-gray-400" aria-live="polite">
      <%= Format.number(MapSet.size(@chosen) - @missing) %> of <%= Format.number(length(@goals)) %> goals chosen.
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
       "The number of visitors that makes a spike", "5 minutes"},
    drop:
      {"When does a drop begin?", "When fewer visitors than this came in the last 12 hours",
       "The number of visitors below which it is a drop", "12 hours"}
  }

  def threshold(assigns) do
    {label, number, visitors, window} = @thresholds[assigns.kind]
    %{"mode" => mode, "value" => value} = assigns.threshold

    assigns =
      assign(assigns,
        label: label,
        choices: [
          {"number", number},
          {"notifier", "When this site's e-mail notification reports it"}
        ],
        visitors: visitors,
        figure: figure(assigns.figures, assigns.kind, window),
        mode: mode,
        value: value
      )

    ~H"""
    <.fields id={"webhook-#{@kind}"} label={@label}>
      <div :for={{choice, text} <- @choices}>
        <.choice
          id={"webhook-#{@kind}-#{choice}"}
          type="radio"
          name={"webhook[#{@kind}][mode]"}
          value={choice}
          checked={@mode == choice}
        >
          <%= text %>
        </.choice>
        <div :if={choice == "number" and @mode == "number"} class="sm:ml-7 mb-2 max-w-xs">
          <label for={"webhook-#{@kind}-value"} class="sr-only"><%= @visitors %></label>
          <.input
            id={"webhook-#{@kind}-value"}
            name={"webhook[#{@kind}][value]"}
            value={@value}
            inputmode="numeric"
            maxlength="20"
            error={@error}
            describe={"webhook-#{@kind}-figure"}
            phx-debounce="300"
          />
          <.error id={"webhook-#{@kind}-value-error"} text={@error} />
          <p id={"webhook-#{@kind}-figure"} class="mt-1 text-sm text-gray-500 dark:text-gray-400">
            <%= @figure %>
          </p>
        </div>
      </div>
    </.fields>
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
      error={FormData.error(@errors, :traffic_min_interval_s)}
      class="max-w-md"
    >
      <.select
        id="webhook-interval"
        name="webhook[interval]"
        value={@form.params["interval"]}
        options={Labels.intervals(@form.params["interval"])}
        aria-describedby="webhook-interval-help"
      />
    </.field>
    """
  end

  def headers(assigns) do
    rows = for {key, row} <- FormData.headers(assigns.form), do: {key, Redacted.wrap(row)}
    assigns = assign(assigns, rows: Enum.with_index(rows, 1))

    ~H"""
    <.fields
      id="webhook-headers"
      label="Extra headers"
      help="For example Authorization, if your endpoint expects a token. We send them with every request."
      error={FormData.error(@errors, :headers)}
    >
      <div :for={{{key, row}, index} <- @rows} class="mt-2 flex flex-wrap gap-2">
        <.header_input key={key} part="name" row={row} label={"Name of header #{index}"} />
        <.header_input key={key} part="value" row={row} label={"Value of header #{index}"} />
        <.icon_button
          icon={:delete}
          label={"Remove header #{index}"}
          phx-click="remove_header"
          phx-value-key={key}
        />
      </div>
      <div class="mt-2">
        <.button id="webhook-add-header" phx-click="add_header" disabled={FormData.full?(@form)}>
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
    <div class="flex-1 min-w-32">
      <label for={"webhook-header-#{@key}-#{@part}"} class="sr-only"><%= @label %></label>
      <.input
        id={"webhook-header-#{@key}-#{@part}"}
        name={"webhook[headers][#{@key}][#{@part}]"}
        value={Redacted.unwrap(@row)[@part]}
        placeholder={@placeholder}
        maxlength={@maxlength}
        phx-debounce="300"
      />
    </div>
    """
  end
end
