defmodule PlausibleWeb.Live.WebhookSettings.FormView do
  @moduledoc false
  # How the form is shown; `FormPage` has its events.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Components
  import PlausibleWeb.Live.WebhookSettings.Texts, only: [t: 1, t: 2]

  alias Plausible.Webhooks.Event
  alias PlausibleWeb.Live.WebhookSettings.{Form, Format, Hidden, Safe, Texts}

  @goals_shown 50

  attr(:form, Form, required: true)
  attr(:goals, :any, required: true)
  attr(:figures, :any, required: true)

  def render(assigns) do
    ~H"""
    <div>
      <.heading id="webhook-form-title">
        <%= if @form.id do %>
          <%= t(:form_edit, name: Safe.line(@form.title)) %>
        <% else %>
          <%= t(:form_new) %>
        <% end %>
      </.heading>

      <.notices form={@form} />

      <%!-- Of the field in which goals are searched: Enter there is to save nothing. --%>
      <form id="webhook-search-form" phx-submit="form.search" autocomplete="off"></form>
      <form
        id="webhook-form"
        phx-change="form.change"
        phx-submit="form.save"
        novalidate
        autocomplete="off"
        class="mt-4 space-y-6"
      >
        <.url form={@form} />

        <.description form={@form} />

        <.events form={@form} />
        <.goals :if={"goal.completed" in @form.events} form={@form} goals={@goals} />
        <.threshold
          :if={"traffic.spike" in @form.events}
          kind={:spike}
          threshold={@form.spike}
          error={error(@form, :spike_threshold)}
          figures={@figures}
        />
        <.threshold
          :if={"traffic.drop" in @form.events}
          kind={:drop}
          threshold={@form.drop}
          error={error(@form, :drop_threshold)}
          figures={@figures}
        />
        <.interval
          :if={"traffic.spike" in @form.events or "traffic.drop" in @form.events}
          form={@form}
        />

        <.headers form={@form} />

        <.own_secret :if={@form.id == nil} form={@form} />

        <div class="flex flex-wrap gap-3">
          <.button type="submit" theme={:primary} phx-disable-with={t(:loading)}>
            <%= if @form.id, do: t(:save_edit), else: t(:save_new) %>
          </.button>
          <.button phx-click="page.cancel_form"><%= t(:cancel) %></.button>
        </div>
      </form>
    </div>
    """
  end

  defp notices(assigns) do
    ~H"""
    <.notice :if={@form.changed?} theme={:yellow} class="mt-4" role="alert">
      <p><%= t(:changed_elsewhere) %></p>
      <.text_button phx-click="form.reload"><%= t(:reload) %></.text_button>
    </.notice>

    <div id="webhook-form-errors" tabindex="-1" class="mt-4 rounded-md">
      <.notice :if={@form.errors != %{}} theme={:red} role="alert">
        <p class="font-semibold"><%= t(:errors_title) %></p>
        <ul class="mt-1 list-disc pl-5">
          <li :for={{field, text} <- @form.errors}><%= Texts.invalid(field, text) %></li>
        </ul>
      </.notice>
    </div>
    """
  end

  defp url(assigns) do
    ~H"""
    <.field id="webhook-url" label={t(:url_label)} help={t(:url_help)} error={error(@form, :url)}>
      <.input
        id="webhook-url"
        type="url"
        name="webhook[url]"
        value={@form.url}
        help
        error={error(@form, :url)}
        describe="webhook-url-check"
        inputmode="url"
        maxlength="2100"
        required
        phx-debounce="300"
      />
      <div id="webhook-url-check" aria-live="polite" class="mt-1.5 text-sm break-words">
        <.url_check check={@form.url_check} saved_error={error(@form, :url)} />
      </div>
    </.field>
    """
  end

  defp description(assigns) do
    ~H"""
    <.field id="webhook-name" label={t(:name_label)} help={t(:name_help)} error={error(@form, :name)}>
      <.input
        id="webhook-name"
        name="webhook[name]"
        value={@form.name}
        help
        error={error(@form, :name)}
        maxlength="100"
        phx-debounce="300"
      />
    </.field>
    """
  end

  defp interval(assigns) do
    ~H"""
    <.field
      id="webhook-interval"
      label={t(:interval_label)}
      help={t(:interval_help)}
      error={error(@form, :traffic_min_interval_s)}
    >
      <.select
        id="webhook-interval"
        name="webhook[interval]"
        value={@form.interval}
        options={Texts.intervals(seconds(@form.interval))}
        aria-describedby="webhook-interval-help"
      />
    </.field>
    """
  end

  defp own_secret(assigns) do
    ~H"""
    <.field
      id="webhook-secret"
      label={t(:secret_own_label)}
      help={t(:secret_own_help)}
      error={error(@form, :secret)}
    >
      <.input
        id="webhook-secret"
        name="webhook[secret]"
        value={@form.secret}
        help
        error={error(@form, :secret)}
        autocomplete="off"
        maxlength="200"
        phx-debounce="300"
      />
    </.field>
    """
  end

  defp error(%{errors: errors}, field) do
    with text when is_binary(text) <- errors[field], do: Texts.invalid(field, text)
  end

  defp seconds(text) do
    case Integer.parse(text) do
      {seconds, ""} -> seconds
      _other -> 0
    end
  end

  defp url_check(%{check: {:ok, found}} = assigns) do
    assigns = assign(assigns, found: found)

    ~H"""
    <p class="text-green-800 dark:text-green-300">
      <%= if @found.host_unicode do %>
        <%= t(:url_ok_punycode,
          unicode: Safe.line(@found.host_unicode),
          host: @found.host,
          port: @found.port
        ) %>
      <% else %>
        <%= t(:url_ok, host: @found.host, port: @found.port) %>
      <% end %>
    </p>
    """
  end

  # What the saving has said stands below already.
  defp url_check(%{check: {:error, text}, saved_error: saved} = assigns) do
    assigns = assign(assigns, text: Texts.invalid(:url, text))

    if saved == assigns.text do
      ~H""
    else
      ~H"""
      <p class="text-red-700 dark:text-red-300"><%= @text %></p>
      """
    end
  end

  defp url_check(assigns), do: ~H""

  defp events(assigns) do
    assigns = assign(assigns, types: Event.subscribable_types())

    ~H"""
    <fieldset id="webhook-events" aria-describedby="webhook-events-help">
      <legend class="text-sm font-medium text-gray-900 dark:text-gray-100">
        <%= t(:events_label) %>
      </legend>
      <p id="webhook-events-help" class="mt-0.5 text-sm text-gray-600 dark:text-gray-300">
        <%= t(:events_help) %>
      </p>
      <input type="hidden" name="webhook[events][]" value="" />
      <div class="mt-1">
        <.choice
          :for={type <- @types}
          id={"webhook-event-#{type}"}
          name="webhook[events][]"
          value={type}
          checked={type in @form.events}
        >
          <%= Texts.type(type) %>
          <code class="text-xs text-gray-600 dark:text-gray-300"><%= type %></code>
          <:help><%= Texts.type_help(type) %></:help>
        </.choice>
      </div>
      <.error id="webhook-events-error" text={error(@form, :events)} />
    </fieldset>
    """
  end

  defp goals(assigns) do
    ~H"""
    <fieldset id="webhook-goals">
      <legend class="text-sm font-medium text-gray-900 dark:text-gray-100">
        <%= t(:goals_label) %>
      </legend>
      <div class="mt-1">
        <.choice
          id="webhook-goals-all"
          type="radio"
          name="webhook[goals]"
          value="all"
          checked={@form.goals == :all}
        >
          <%= t(:goals_all) %>
        </.choice>
        <.choice
          id="webhook-goals-some"
          type="radio"
          name="webhook[goals]"
          value="some"
          checked={@form.goals == :some}
        >
          <%= t(:goals_some) %>
        </.choice>
      </div>
      <div :if={@form.goals == :some} class="mt-2 sm:ml-7">
        <.chosen_goals form={@form} goals={@goals} />
      </div>
      <.error id="webhook-goals-error" text={error(@form, :goals)} />
    </fieldset>
    """
  end

  defp chosen_goals(%{goals: nil} = assigns),
    do: ~H|<p class="text-sm text-gray-600 dark:text-gray-300"><%= t(:loading) %></p>|

  defp chosen_goals(%{goals: {:error, _reason}} = assigns),
    do: ~H|<.notice theme={:yellow}><%= t(:goals_failed) %></.notice>|

  defp chosen_goals(%{goals: []} = assigns), do: ~H|<.notice><%= t(:goals_empty) %></.notice>|

  defp chosen_goals(assigns) do
    %{form: form, goals: goals} = assigns
    {shown, more} = Form.shown_goals(form, goals, @goals_shown)
    missing = Form.missing(form, goals)
    chosen = MapSet.size(form.chosen) - missing
    assigns = assign(assigns, shown: shown, more: more, missing: missing, chosen: chosen)

    ~H"""
    <.field id="webhook-goal-search" label={t(:goals_search)}>
      <.input
        id="webhook-goal-search"
        type="search"
        form="webhook-search-form"
        name="search"
        value={@form.search}
        phx-change="form.search"
        maxlength="200"
      />
    </.field>
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
        <%= t(:goals_none_found) %>
      </p>
    </div>
    <p class="mt-1.5 text-sm text-gray-600 dark:text-gray-300" aria-live="polite">
      <%= t(:goals_chosen, count: Format.number(@chosen), total: Format.number(length(@goals))) %>
      <span :if={@more > 0}><%= t(:goals_more, count: Format.number(@more)) %></span>
      <span :if={@missing > 0}><%= t(:goals_missing, count: Format.number(@missing)) %></span>
    </p>
    """
  end

  defp threshold(assigns) do
    texts = %{
      spike: {:spike_label, :threshold_number_spike, :threshold_visitors_spike},
      drop: {:drop_label, :threshold_number_drop, :threshold_visitors_drop}
    }

    {label, number, visitors} = texts[assigns.kind]
    assigns = assign(assigns, label: t(label), number: t(number), visitors: t(visitors))

    ~H"""
    <fieldset id={"webhook-#{@kind}"}>
      <legend class="text-sm font-medium text-gray-900 dark:text-gray-100"><%= @label %></legend>
      <div class="mt-1">
        <.choice
          id={"webhook-#{@kind}-number"}
          type="radio"
          name={"webhook[#{@kind}][mode]"}
          value="number"
          checked={@threshold.mode == :number}
        >
          <%= @number %>
        </.choice>
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
            <%= figure(@kind, @figures) %>
          </p>
        </div>
        <.choice
          id={"webhook-#{@kind}-notifier"}
          type="radio"
          name={"webhook[#{@kind}][mode]"}
          value="notifier"
          checked={@threshold.mode == :notifier}
        >
          <%= t(:threshold_notifier) %>
        </.choice>
      </div>
      <.error id={"webhook-#{@kind}-value-error"} text={@error} />
    </fieldset>
    """
  end

  defp figure(_kind, nil), do: t(:loading)
  defp figure(_kind, {:error, _reason}), do: t(:figure_failed)

  defp figure(:spike, %{spike: %{visitors: count}}),
    do: t(:figure_spike, count: Format.number(count))

  defp figure(:drop, %{drop: %{visitors: count}}),
    do: t(:figure_drop, count: Format.number(count))

  defp header_rows(form) do
    rows = for {key, name, value} <- form.headers, do: {key, name, Hidden.wrap(value)}
    Enum.with_index(rows, 1)
  end

  defp headers(assigns) do
    assigns = assign(assigns, full?: length(assigns.form.headers) >= Form.headers_max())

    ~H"""
    <fieldset id="webhook-headers">
      <legend class="text-sm font-medium text-gray-900 dark:text-gray-100">
        <%= t(:headers_label) %>
      </legend>
      <p class="mt-0.5 text-sm text-gray-600 dark:text-gray-300"><%= t(:headers_help) %></p>
      <div :for={{{key, name, value}, index} <- header_rows(@form)} class="mt-2 flex flex-wrap gap-2">
        <div class="flex-1 min-w-[8rem]">
          <label for={"webhook-header-#{key}-name"} class="sr-only">
            <%= t(:header_name, n: index) %>
          </label>
          <.input
            id={"webhook-header-#{key}-name"}
            name={"webhook[headers][#{key}][name]"}
            value={name}
            placeholder="Authorization"
            maxlength="200"
            phx-debounce="300"
          />
        </div>
        <div class="flex-1 min-w-[8rem]">
          <label for={"webhook-header-#{key}-value"} class="sr-only">
            <%= t(:header_value, n: index) %>
          </label>
          <.input
            id={"webhook-header-#{key}-value"}
            name={"webhook[headers][#{key}][value]"}
            value={Hidden.shown(value)}
            placeholder="Bearer …"
            maxlength="4200"
            phx-debounce="300"
          />
        </div>
        <.button
          phx-click="form.remove_header"
          phx-value-key={key}
          aria-label={t(:header_remove, n: index)}
        >
          <span aria-hidden="true">✕</span>
        </.button>
      </div>
      <.error id="webhook-headers-error" text={error(@form, :headers)} />
      <div class="mt-2">
        <.button id="webhook-add-header" phx-click="form.add_header" disabled={@full?}>
          <%= t(:header_add) %>
        </.button>
      </div>
    </fieldset>
    """
  end
end
