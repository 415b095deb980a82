defmodule PlausibleWeb.Live.WebhookSettings.Components do
  @moduledoc false
  # The parts of the page in Plausible's visual language. They use no inline style and no
  # hook. Every colour has a text or a shape beside it.
  #
  # A text to copy is in a read-only field: a click or the Tab key selects all of it, and a
  # screen reader finds it by its label.

  use Phoenix.Component

  alias Phoenix.LiveView.JS
  alias PlausibleWeb.Live.WebhookSettings.{ForeignText, Format, Redacted}

  @focus "focus-visible:outline-none focus-visible:ring-2 focus-visible:ring-indigo-500 focus-visible:ring-offset-2 dark:focus-visible:ring-offset-gray-900"
  @button "inline-flex items-center justify-center gap-x-2 whitespace-nowrap font-medium rounded-md px-3.5 py-2.5 text-sm transition-all duration-150 cursor-pointer disabled:cursor-not-allowed disabled:opacity-60"
  @themes %{
    primary: "bg-indigo-600 text-white hover:bg-indigo-700",
    secondary:
      "border border-gray-300 dark:border-gray-700 bg-white dark:bg-gray-700 text-gray-800 dark:text-gray-100 hover:shadow-sm dark:hover:bg-gray-600",
    danger:
      "border border-gray-300 dark:border-gray-700 bg-white dark:bg-gray-800 text-red-700 dark:text-red-400 hover:shadow-sm"
  }
  @input "block w-full text-sm text-gray-900 dark:text-gray-100 bg-white dark:bg-gray-800 px-3.5 py-2.5 border border-gray-300 dark:border-gray-600 rounded-md dark:[color-scheme:dark]"
  @code "block w-full font-mono text-xs text-gray-900 dark:text-gray-100 bg-gray-50 dark:bg-gray-800 px-3 py-2 border border-gray-300 dark:border-gray-600 rounded-md"

  # --- buttons and links

  attr(:theme, :atom, default: :secondary)
  attr(:type, :string, default: "button")
  attr(:href, :string, default: nil, doc: "makes it a link")
  attr(:rest, :global, include: ~w(disabled name value form))
  slot(:inner_block, required: true)

  def button(assigns) do
    assigns = assign(assigns, classes: [@button, @themes[assigns.theme], @focus])

    ~H"""
    <.press href={@href} type={@type} class={@classes} {@rest}><%= render_slot(@inner_block) %></.press>
    """
  end

  attr(:href, :string, required: true)
  attr(:rest, :global, include: ~w(type disabled name value form))
  slot(:inner_block, required: true)

  defp press(assigns) do
    ~H"""
    <a :if={@href} href={@href} {Map.delete(@rest, :type)}><%= render_slot(@inner_block) %></a>
    <button :if={@href == nil} {@rest}><%= render_slot(@inner_block) %></button>
    """
  end

  attr(:href, :string, default: nil)
  attr(:class, :string, default: "")
  attr(:rest, :global)
  slot(:inner_block, required: true)

  @doc "A link; without `href` a button that looks like one."
  def text_link(assigns) do
    assigns =
      assign(assigns,
        classes: [
          "inline-flex items-center min-h-6 rounded-sm text-sm text-left text-indigo-700 dark:text-indigo-300 hover:underline cursor-pointer",
          @focus,
          assigns.class
        ]
      )

    ~H"""
    <.press href={@href} type="button" class={@classes} {@rest}><%= render_slot(@inner_block) %></.press>
    """
  end

  @icons %{
    edit: {"M4 20h4L19.5 8.5l-4-4L4 16v4ZM13 7l4 4", "text-indigo-700 dark:text-indigo-400"},
    delete:
      {"M5 7h14M10 7V4.5h4V7M7 7l1 13h8l1-13M10.5 11v5.5M13.5 11v5.5",
       "text-red-700 dark:text-red-400"}
  }

  attr(:icon, :atom, required: true, values: Map.keys(@icons))
  attr(:label, :string, required: true)
  attr(:href, :string, default: nil)
  attr(:rest, :global)

  def icon_button(assigns) do
    {path, color} = @icons[assigns.icon]

    classes = [
      "rounded-md p-2 hover:bg-gray-100 dark:hover:bg-gray-800 cursor-pointer",
      color,
      @focus
    ]

    assigns = assign(assigns, path: path, classes: classes)

    ~H"""
    <.press href={@href} type="button" aria-label={@label} title={@label} class={@classes} {@rest}>
      <svg class="size-5" viewBox="0 0 24 24" fill="none" stroke="currentColor" aria-hidden="true">
        <path d={@path} stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" />
      </svg>
    </.press>
    """
  end

  # --- texts

  attr(:id, :string, required: true)
  attr(:title, :string, required: true)
  slot(:inner_block, required: true)
  slot(:text)

  def section(assigns) do
    ~H"""
    <section
      aria-labelledby={"#{@id}-title"}
      id={@id}
      class="border-t border-gray-200 dark:border-gray-700 pt-6 mt-6"
    >
      <h3 id={"#{@id}-title"} tabindex="-1" class="text-base font-medium leading-7 outline-none">
        <%= @title %>
      </h3>
      <p :if={@text != []} class="text-sm text-gray-500 dark:text-gray-400">
        <%= render_slot(@text) %>
      </p>
      <div class="mt-4"><%= render_slot(@inner_block) %></div>
    </section>
    """
  end

  @notices %{
    gray: "bg-gray-100 dark:bg-gray-800",
    yellow: "bg-yellow-100 dark:bg-yellow-900/40",
    red: "bg-red-100 dark:bg-red-900/30",
    green: "bg-green-100 dark:bg-green-900/30"
  }

  attr(:theme, :atom, default: :gray, values: Map.keys(@notices))
  attr(:class, :string, default: "")
  attr(:rest, :global)
  slot(:inner_block, required: true)

  def notice(assigns) do
    assigns = assign(assigns, colors: @notices[assigns.theme])

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
      {"bg-green-100 text-green-800 dark:bg-green-900/40 dark:text-green-300",
       "text-green-700 dark:text-green-400", "M1.5 5.5l2.5 2.5 4.5-6"},
    red:
      {"bg-red-100 text-red-800 dark:bg-red-900/40 dark:text-red-300",
       "text-red-700 dark:text-red-400", "M2 2l6 6M8 2l-6 6"},
    yellow:
      {"bg-yellow-100 text-yellow-900 dark:bg-yellow-900/40 dark:text-yellow-200",
       "text-yellow-700 dark:text-yellow-300", "M5 1.4a3.6 3.6 0 1 0 .01 0M5 3v2.2l1.4 1"},
    gray:
      {"bg-gray-100 text-gray-800 dark:bg-gray-700 dark:text-gray-100",
       "text-gray-600 dark:text-gray-300", "M3.2 2v6M6.8 2v6"}
  }

  attr(:tone, :atom, default: :gray, values: Map.keys(@badges))
  slot(:inner_block, required: true)

  def badge(assigns) do
    assigns = assign(assigns, colors: elem(@badges[assigns.tone], 0))

    ~H"""
    <span class={[
      "inline-flex items-center gap-x-1.5 rounded-md px-2 py-0.5 text-xs font-medium whitespace-nowrap",
      @colors
    ]}>
      <.shape tone={@tone} class="size-2.5" plain />
      <%= render_slot(@inner_block) %>
    </span>
    """
  end

  attr(:tone, :atom, required: true)
  attr(:class, :string, default: "")
  attr(:plain, :boolean, default: false, doc: "takes the colour of the text around it")

  def shape(assigns) do
    {_badge, color, path} = @badges[assigns.tone]
    assigns = assign(assigns, path: path, color: if(assigns.plain, do: nil, else: color))

    ~H"""
    <svg class={["shrink-0", @class, @color]} viewBox="0 0 10 10" aria-hidden="true">
      <path d={@path} fill="none" stroke="currentColor" stroke-width="1.6" />
    </svg>
    """
  end

  attr(:text, :any, required: true)
  attr(:class, :string, default: "")

  # Text from outside, which keeps its direction to itself.
  def foreign(assigns) do
    ~H|<bdi class={@class}><%= ForeignText.line(@text) %></bdi>|
  end

  @doc "How long ago, with the time in the site's time zone as its tooltip."
  def ago(assigns) do
    ~H"""
    <time
      dir="ltr"
      datetime={Format.iso(@ms)}
      title={Format.time(@ms, @zone)}
      class="whitespace-nowrap"
    ><%= Format.ago(@now_ms - @ms) %></time>
    """
  end

  @doc "The time left. The page's script counts it down."
  def countdown(assigns) do
    ~H|<time dir="ltr" data-until={@until_ms}><%= Format.countdown(@until_ms - @now_ms) %></time>|
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
      <label for={@id} class="block text-sm font-medium"><%= @label %></label>
      <p :if={@help} id={"#{@id}-help"} class="mt-0.5 text-sm text-gray-500 dark:text-gray-400">
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
      class="mt-1.5 text-sm font-medium text-red-700 dark:text-red-400 break-words"
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
    %{id: id, help: help?, describe: more, error: error} = assigns
    described = Enum.filter([help? && "#{id}-help", more, error && "#{id}-error"], & &1)
    assigns = assign(assigns, classes: [@input, @focus], described: Enum.join(described, " "))

    ~H"""
    <input
      id={@id}
      type={@type}
      name={@name}
      value={@value}
      class={@classes}
      aria-invalid={@error && "true"}
      aria-describedby={@described != "" && @described}
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
  slot(:inner_block, required: true)

  # Fields that belong together.
  def fields(assigns) do
    ~H"""
    <fieldset id={@id} tabindex="-1" aria-describedby={@help && "#{@id}-help"} class="outline-none">
      <legend class="text-sm font-medium"><%= @label %></legend>
      <p :if={@help} id={"#{@id}-help"} class="mt-0.5 text-sm text-gray-500 dark:text-gray-400">
        <%= @help %>
      </p>
      <div class="mt-1"><%= render_slot(@inner_block) %></div>
      <.error id={"#{@id}-error"} text={@error} />
    </fieldset>
    """
  end

  attr(:id, :string, required: true)
  attr(:name, :string, required: true)
  attr(:value, :any, default: nil)
  attr(:options, :list, required: true, doc: "`{value, text}`")
  attr(:rest, :global)

  def select(assigns) do
    assigns = assign(assigns, classes: [@input, @focus, "pr-8"])

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
  slot(:inner_block, required: true)
  slot(:help)

  # A checkbox or a radio button. The label is the target too: 24 px at least.
  def choice(assigns) do
    shape = if assigns.type == "checkbox", do: "rounded-sm", else: "rounded-full"
    assigns = assign(assigns, classes: [shape, @focus])

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
          "mt-1 size-4 shrink-0 border-gray-400 text-indigo-600 dark:bg-gray-700 dark:border-gray-500 dark:checked:bg-indigo-500 dark:[color-scheme:dark]",
          @classes
        ]}
      />
      <div class="min-w-0">
        <label for={@id} class="block min-h-6 pt-0.5 text-sm break-words">
          <%= render_slot(@inner_block) %>
        </label>
        <p :if={@help != []} id={"#{@id}-help"} class="text-sm text-gray-500 dark:text-gray-400">
          <%= render_slot(@help) %>
        </p>
      </div>
    </div>
    """
  end

  # --- blocks

  @doc "A text to copy: a line, or a block when it has several."
  def copy(assigns) do
    lines = assigns.value |> String.split("\n") |> length()
    assigns = assign(assigns, lines: lines, classes: [@code, @focus])

    ~H"""
    <div>
      <div class="flex flex-wrap items-center justify-between gap-2">
        <label for={@id} class="block text-sm font-medium"><%= @label %></label>
        <span class="inline-flex items-center gap-x-2">
          <span
            id={"#{@id}-copied"}
            role="status"
            phx-update="ignore"
            class="text-sm text-gray-500 dark:text-gray-400"
          >
          </span>
          <.text_link
            phx-click={JS.dispatch("webhooks:copy", to: "##{@id}")}
            aria-label={"Copy: #{@label}"}
          >
            Copy
          </.text_link>
        </span>
      </div>
      <input
        :if={@lines == 1}
        id={@id}
        type="text"
        readonly
        value={@value}
        autocomplete="off"
        spellcheck="false"
        dir="ltr"
        class={["mt-1", @classes]}
      />
      <textarea
        :if={@lines > 1}
        id={@id}
        readonly
        rows={min(@lines, 18)}
        wrap="off"
        spellcheck="false"
        dir="ltr"
        class={["mt-1 whitespace-pre overflow-x-auto", @classes]}
      ><%= @value %></textarea>
    </div>
    """
  end

  # Text from outside in lines, scrollable by keyboard. A group and no landmark, of which a page
  # should have few: each attempt has the same blocks.
  def foreign_block(assigns) do
    assigns = assign(assigns, shown: ForeignText.block(assigns.text), classes: [@code, @focus])

    ~H"""
    <div>
      <p id={"#{@id}-label"} class="text-sm font-medium"><%= @label %></p>
      <pre
        id={@id}
        dir="auto"
        tabindex="0"
        role="group"
        aria-labelledby={"#{@id}-label"}
        class={["mt-1 max-h-64 overflow-auto whitespace-pre-wrap break-all", @classes]}
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
        :if={Redacted.unwrap(text) not in [nil, false, ""]}
        class="py-2 sm:grid sm:grid-cols-4 sm:gap-4"
      >
        <dt class="font-medium break-words"><%= name %></dt>
        <dd class="sm:col-span-3 min-w-0 break-words text-gray-600 dark:text-gray-300">
          <.foreign text={Redacted.unwrap(text)} />
        </dd>
      </div>
    </dl>
    """
  end
end
