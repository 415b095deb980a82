defmodule PlausibleWeb.Live.WebhookSettings.Components do
  @moduledoc false
  # The parts of the page, in Plausible's visual language. They use no inline style or
  # script and no hook, so the page works under a strict Content-Security-Policy. Every
  # colour has a text or a shape beside it.
  #
  # A text to copy is in a read-only field: the Tab key selects all of it, a screen reader
  # finds it by its label, and it needs no script. A button joins it where a script copies
  # (session key "copy").

  use Phoenix.Component

  alias Phoenix.LiveView.JS
  alias PlausibleWeb.Live.WebhookSettings.{ForeignText, Redacted}

  @focus "focus-visible:outline-none focus-visible:ring-2 focus-visible:ring-indigo-500 focus-visible:ring-offset-2 dark:focus-visible:ring-offset-gray-900"
  @button "inline-flex items-center justify-center gap-x-2 font-medium rounded-md px-3.5 py-2 min-h-[2.25rem] text-sm text-center transition-colors duration-150 cursor-pointer disabled:cursor-not-allowed disabled:opacity-60"
  @themes %{
    primary: "bg-indigo-600 text-white hover:bg-indigo-700",
    secondary:
      "border border-gray-300 dark:border-gray-600 bg-white dark:bg-gray-700 text-gray-800 dark:text-gray-100 hover:bg-gray-50 dark:hover:bg-gray-600",
    danger:
      "border border-gray-300 dark:border-gray-600 bg-white dark:bg-gray-800 text-red-700 dark:text-red-300 hover:bg-red-50 dark:hover:bg-gray-700"
  }
  @input "block w-full text-sm text-gray-900 dark:text-white bg-white dark:bg-gray-800 px-3 py-2 border border-gray-400 dark:border-gray-500 rounded-md dark:[color-scheme:dark]"
  @code "block w-full font-mono text-xs text-gray-900 dark:text-gray-100 bg-gray-50 dark:bg-gray-800 px-3 py-2 border border-gray-300 dark:border-gray-600 rounded-md"

  attr(:theme, :atom, default: :secondary)
  attr(:type, :string, default: "button")
  attr(:class, :string, default: "")
  attr(:rest, :global, include: ~w(disabled name value form))
  slot(:inner_block, required: true)

  def button(assigns) do
    assigns = assign(assigns, :classes, [@button, @themes[assigns.theme], @focus, assigns.class])

    ~H"""
    <button type={@type} class={@classes} {@rest}><%= render_slot(@inner_block) %></button>
    """
  end

  attr(:class, :string, default: "")
  attr(:rest, :global)
  slot(:inner_block, required: true)

  # A button that looks like a link.
  def text_button(assigns) do
    assigns = assign(assigns, :focus_class, @focus)

    ~H"""
    <button
      type="button"
      class={[
        "inline-flex items-center min-h-[1.5rem] rounded text-sm text-left text-indigo-700 dark:text-indigo-300 hover:underline cursor-pointer",
        @focus_class,
        @class
      ]}
      {@rest}
    >
      <%= render_slot(@inner_block) %>
    </button>
    """
  end

  attr(:id, :string, required: true)
  attr(:class, :string, default: "")
  slot(:inner_block, required: true)

  # Takes the focus when a view opens.
  def heading(assigns) do
    assigns = assign(assigns, :focus_class, @focus)

    ~H"""
    <h2
      id={@id}
      tabindex="-1"
      class={[
        "text-lg font-medium leading-7 text-gray-900 dark:text-gray-100 rounded break-words",
        @focus_class,
        @class
      ]}
    >
      <%= render_slot(@inner_block) %>
    </h2>
    """
  end

  attr(:id, :string, required: true)
  attr(:title, :string, required: true)
  attr(:text, :string, default: nil)
  slot(:inner_block, required: true)

  def section(assigns) do
    ~H"""
    <section
      aria-labelledby={"#{@id}-title"}
      id={@id}
      class="border-t border-gray-200 dark:border-gray-700 pt-6 mt-6"
    >
      <h3
        id={"#{@id}-title"}
        tabindex="-1"
        class="text-base font-semibold text-gray-900 dark:text-gray-100 rounded"
      >
        <%= @title %>
      </h3>
      <p :if={@text} class="mt-1 text-sm text-gray-600 dark:text-gray-300"><%= @text %></p>
      <div class="mt-4"><%= render_slot(@inner_block) %></div>
    </section>
    """
  end

  @notices %{
    gray: "bg-gray-100 dark:bg-gray-800",
    yellow: "bg-yellow-100 dark:bg-yellow-900/40",
    red: "bg-red-100 dark:bg-red-900/40",
    green: "bg-green-100 dark:bg-green-900/40"
  }

  attr(:theme, :atom, default: :gray, values: Map.keys(@notices))
  attr(:class, :string, default: "")
  attr(:rest, :global)
  slot(:inner_block, required: true)

  def notice(assigns) do
    assigns = assign(assigns, :colors, @notices[assigns.theme])

    ~H"""
    <div
      class={["rounded-md p-4 text-sm text-gray-900 dark:text-gray-100 break-words", @colors, @class]}
      {@rest}
    >
      <%= render_slot(@inner_block) %>
    </div>
    """
  end

  # A shape for each, for eyes that do not tell the colours apart.
  @badges %{
    green:
      {"bg-green-100 text-green-900 dark:bg-green-900/50 dark:text-green-100",
       "M1.5 5.5l2.5 2.5 4.5-6"},
    red: {"bg-red-100 text-red-900 dark:bg-red-900/50 dark:text-red-100", "M2 2l6 6M8 2l-6 6"},
    yellow:
      {"bg-yellow-100 text-yellow-900 dark:bg-yellow-900/50 dark:text-yellow-100",
       "M5 1.4a3.6 3.6 0 1 0 .01 0M5 3v2.2l1.4 1"},
    gray: {"bg-gray-100 text-gray-800 dark:bg-gray-700 dark:text-gray-100", "M3.2 2v6M6.8 2v6"},
    plain: {"border border-gray-300 text-gray-700 dark:border-gray-600 dark:text-gray-200", nil}
  }

  attr(:tone, :atom, default: :gray, values: Map.keys(@badges))
  slot(:inner_block, required: true)

  def badge(assigns) do
    {colors, shape} = @badges[assigns.tone]
    assigns = assign(assigns, colors: colors, shape: shape)

    ~H"""
    <span class={[
      "inline-flex items-center gap-x-1.5 rounded-md px-2 py-0.5 text-xs font-medium whitespace-nowrap",
      @colors
    ]}>
      <svg :if={@shape} class="h-2.5 w-2.5" viewBox="0 0 10 10" aria-hidden="true">
        <path d={@shape} fill="none" stroke="currentColor" stroke-width="1.6" />
      </svg>
      <%= render_slot(@inner_block) %>
    </span>
    """
  end

  attr(:text, :any, required: true)
  attr(:class, :string, default: "")

  # Text from outside, which keeps its direction to itself.
  def foreign(assigns) do
    ~H|<bdi class={@class}><%= ForeignText.line(@text) %></bdi>|
  end

  # --- fields

  attr(:id, :string, required: true)
  attr(:label, :string, required: true)
  attr(:help, :string, default: nil)
  attr(:error, :string, default: nil)
  attr(:class, :string, default: "")
  slot(:inner_block, required: true)

  def field(assigns) do
    ~H"""
    <div class={@class}>
      <label for={@id} class="block text-sm font-medium text-gray-900 dark:text-gray-100">
        <%= @label %>
      </label>
      <p :if={@help} id={"#{@id}-help"} class="mt-0.5 text-sm text-gray-600 dark:text-gray-300">
        <%= @help %>
      </p>
      <div class="mt-1.5"><%= render_slot(@inner_block) %></div>
      <.error id={"#{@id}-error"} text={@error} />
    </div>
    """
  end

  attr(:id, :string, required: true)
  attr(:text, :string, default: nil)

  def error(assigns) do
    ~H"""
    <p
      :if={@text}
      id={@id}
      class="mt-1.5 text-sm font-medium text-red-700 dark:text-red-300 break-words"
    >
      <%= @text %>
    </p>
    """
  end

  attr(:id, :string, required: true)
  attr(:type, :string, default: "text")
  attr(:name, :string, required: true)
  attr(:value, :any, default: "")
  attr(:help, :boolean, default: false)
  attr(:error, :string, default: nil)
  attr(:describe, :string, default: nil)

  attr(:rest, :global,
    include: ~w(autocomplete form inputmode maxlength placeholder required min max step)
  )

  def input(assigns) do
    assigns = assign(assigns, :classes, [@input, @focus])

    ~H"""
    <input
      id={@id}
      type={@type}
      name={@name}
      value={@value}
      class={@classes}
      aria-invalid={@error && "true"}
      aria-describedby={described(@id, @help, @error, @describe)}
      {@rest}
    />
    """
  end

  attr(:id, :string, required: true)
  attr(:label, :string, required: true)
  attr(:help, :string, default: nil)
  attr(:error, :string, default: nil)
  attr(:class, :string, default: "")

  attr(:rest, :global,
    include:
      ~w(type name value describe autocomplete form inputmode maxlength placeholder required)
  )

  slot(:inner_block, doc: "what follows the field")

  def text_field(assigns) do
    ~H"""
    <.field id={@id} label={@label} help={@help} error={@error} class={@class}>
      <.input id={@id} help={@help != nil} error={@error} {@rest} />
      <%= render_slot(@inner_block) %>
    </.field>
    """
  end

  attr(:id, :string, required: true)
  attr(:label, :string, required: true)
  attr(:help, :string, default: nil)
  attr(:error, :string, default: nil)
  attr(:error_id, :string, default: nil)
  slot(:inner_block, required: true)

  # Fields that belong together.
  def fields(assigns) do
    ~H"""
    <fieldset id={@id} aria-describedby={@help && "#{@id}-help"}>
      <legend class="text-sm font-medium text-gray-900 dark:text-gray-100"><%= @label %></legend>
      <p :if={@help} id={"#{@id}-help"} class="mt-0.5 text-sm text-gray-600 dark:text-gray-300">
        <%= @help %>
      </p>
      <div class="mt-1"><%= render_slot(@inner_block) %></div>
      <.error id={@error_id || "#{@id}-error"} text={@error} />
    </fieldset>
    """
  end

  attr(:id, :string, required: true)
  attr(:name, :string, required: true)
  attr(:value, :any, default: nil)
  attr(:options, :list, required: true, doc: "`{value, text}`")
  attr(:rest, :global)

  def select(assigns) do
    assigns = assign(assigns, :classes, [@input, @focus, "pr-8"])

    ~H"""
    <select id={@id} name={@name} class={@classes} {@rest}>
      <option
        :for={{value, text} <- @options}
        value={value}
        selected={to_string(value) == to_string(@value)}
      >
        <%= text %>
      </option>
    </select>
    """
  end

  attr(:id, :string, required: true)
  attr(:type, :string, default: "checkbox")
  attr(:name, :string, required: true)
  attr(:value, :string, required: true)
  attr(:checked, :boolean, default: false)
  attr(:rest, :global)
  slot(:inner_block, required: true)
  slot(:help)

  # A checkbox or a radio button. The label is the target too: 24 px at least.
  def choice(assigns) do
    assigns = assign(assigns, :focus_class, @focus)

    ~H"""
    <div class="flex items-start gap-x-2.5 py-1">
      <input
        id={@id}
        type={@type}
        name={@name}
        value={@value}
        checked={@checked}
        aria-describedby={@help != [] && "#{@id}-help"}
        class={[
          "mt-0.5 h-5 w-5 shrink-0 border-gray-500 dark:border-gray-400 text-indigo-600",
          @type == "checkbox" && "rounded",
          @focus_class
        ]}
        {@rest}
      />
      <div class="min-w-0">
        <label
          for={@id}
          class="block min-h-[1.5rem] text-sm text-gray-900 dark:text-gray-100 break-words"
        >
          <%= render_slot(@inner_block) %>
        </label>
        <p :if={@help != []} id={"#{@id}-help"} class="text-sm text-gray-600 dark:text-gray-300">
          <%= render_slot(@help) %>
        </p>
      </div>
    </div>
    """
  end

  defp described(id, help?, error, more) do
    ids = [help? && "#{id}-help", more, error && "#{id}-error"]
    ids = Enum.filter(ids, & &1)
    if ids != [], do: Enum.join(ids, " ")
  end

  # --- texts to copy

  attr(:id, :string, required: true)
  attr(:label, :string, required: true)
  attr(:value, :string, required: true)
  attr(:copy?, :boolean, required: true)

  def copy_line(assigns) do
    assigns = assign(assigns, :classes, [@code, @focus])

    ~H"""
    <div>
      <label for={@id} class="block text-sm font-medium text-gray-900 dark:text-gray-100">
        <%= @label %>
      </label>
      <div class="mt-1 flex flex-wrap gap-2">
        <input
          id={@id}
          type="text"
          readonly
          value={@value}
          autocomplete="off"
          spellcheck="false"
          dir="ltr"
          class={[@classes, "flex-1 min-w-[12rem]"]}
        />
        <.copy_button :if={@copy?} id={@id} label={@label} />
      </div>
    </div>
    """
  end

  attr(:id, :string, required: true)
  attr(:label, :string, required: true)
  attr(:value, :string, required: true)
  attr(:copy?, :boolean, required: true)

  def copy_block(assigns) do
    assigns = assign(assigns, :classes, [@code, @focus, "whitespace-pre overflow-x-auto"])

    ~H"""
    <div>
      <div class="flex flex-wrap items-center justify-between gap-2">
        <label for={@id} class="block text-sm font-medium text-gray-900 dark:text-gray-100">
          <%= @label %>
        </label>
        <.copy_button :if={@copy?} id={@id} label={@label} />
      </div>
      <textarea
        id={@id}
        readonly
        rows={rows(@value)}
        wrap="off"
        spellcheck="false"
        dir="ltr"
        class={["mt-1", @classes]}
      ><%= @value %></textarea>
    </div>
    """
  end

  # The script of priv/static/webhooks_copy.js fills the status.
  defp copy_button(assigns) do
    ~H"""
    <span class="inline-flex items-center gap-x-2">
      <span
        id={"#{@id}-copied"}
        role="status"
        phx-update="ignore"
        data-copied="Copied"
        class="text-sm text-gray-600 dark:text-gray-300"
      >
      </span>
      <.button phx-click={JS.dispatch("webhooks:copy", to: "##{@id}")} aria-label={"Copy: #{@label}"}>
        Copy
      </.button>
    </span>
    """
  end

  defp rows(text), do: text |> String.split("\n") |> length() |> max(2) |> min(18)

  attr(:id, :string, required: true)
  attr(:label, :string, required: true)
  attr(:text, :string, required: true)

  # Text from outside in lines, scrollable by keyboard.
  def foreign_block(assigns) do
    assigns = assign(assigns, shown: ForeignText.block(assigns.text), focus_class: @focus)

    ~H"""
    <div>
      <p id={"#{@id}-label"} class="text-sm font-medium text-gray-900 dark:text-gray-100">
        <%= @label %>
      </p>
      <pre
        id={@id}
        dir="auto"
        tabindex="0"
        role="region"
        aria-labelledby={"#{@id}-label"}
        class={[
          "mt-1 max-h-64 overflow-auto whitespace-pre-wrap break-all rounded-md border border-gray-300 dark:border-gray-600 bg-gray-50 dark:bg-gray-800 p-3 font-mono text-xs text-gray-900 dark:text-gray-100",
          @focus_class
        ]}
      ><%= @shown %></pre>
    </div>
    """
  end

  attr(:rows, :list, required: true, doc: "`{term, text}`, the text may be `Redacted`")

  def facts(assigns) do
    ~H"""
    <dl class="text-sm divide-y divide-gray-200 dark:divide-gray-700">
      <div
        :for={{name, text} <- @rows}
        :if={Redacted.unwrap(text) not in [nil, ""]}
        class="py-2 sm:grid sm:grid-cols-4 sm:gap-4"
      >
        <dt class="font-medium text-gray-900 dark:text-gray-100"><%= name %></dt>
        <dd class="sm:col-span-3 min-w-0 break-words text-gray-700 dark:text-gray-200">
          <.foreign text={Redacted.unwrap(text)} />
        </dd>
      </div>
    </dl>
    """
  end
end
