defmodule PlausibleWeb.Live.WebhookSettings.Components do
  @moduledoc false
  # The parts that the page is made of, in Plausible's visual language. No style or
  # script in line and no hook: everything holds under a strict
  # Content-Security-Policy. Whatever is only colour to the eye is text as well.
  #
  # What is to be copied stands in a read-only field: the keyboard's Tab selects all
  # of it, a screen reader finds it by its label, and it needs no script of ours in
  # the host's bundle. Where the host has loaded one that listens for
  # `webhooks:copy` (session key "copy"), there is a button besides.

  use Phoenix.Component

  import PlausibleWeb.Live.WebhookSettings.Texts, only: [t: 1]

  alias Phoenix.LiveView.JS
  alias PlausibleWeb.Live.WebhookSettings.{Hidden, Safe}

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

  # Takes the focus when a view begins.
  def heading(assigns) do
    assigns = assign(assigns, :focus_class, @focus)

    ~H"""
    <h2
      id={@id}
      tabindex="-1"
      class={[
        "text-lg font-semibold leading-7 text-gray-900 dark:text-gray-100 rounded break-words",
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

  attr(:theme, :atom, default: :gray, values: [:gray, :yellow, :red, :green])
  attr(:class, :string, default: "")
  attr(:rest, :global)
  slot(:inner_block, required: true)

  def notice(assigns) do
    assigns = assign(assigns, :tone, notice_tone(assigns.theme))

    ~H"""
    <div
      class={["rounded-md p-4 text-sm text-gray-900 dark:text-gray-100 break-words", @tone, @class]}
      {@rest}
    >
      <%= render_slot(@inner_block) %>
    </div>
    """
  end

  defp notice_tone(:gray), do: "bg-gray-100 dark:bg-gray-800"
  defp notice_tone(:yellow), do: "bg-yellow-100 dark:bg-yellow-900/40"
  defp notice_tone(:red), do: "bg-red-100 dark:bg-red-900/40"
  defp notice_tone(:green), do: "bg-green-100 dark:bg-green-900/40"

  attr(:tone, :atom, default: :gray)
  slot(:inner_block, required: true)

  def badge(assigns) do
    assigns = assign(assigns, :classes, badge_tone(assigns.tone))

    ~H"""
    <span class={[
      "inline-flex items-center gap-x-1.5 rounded-md px-2 py-0.5 text-xs font-medium whitespace-nowrap",
      @classes
    ]}>
      <.mark tone={@tone} /><%= render_slot(@inner_block) %>
    </span>
    """
  end

  defp badge_tone(:green),
    do: "bg-green-100 text-green-900 dark:bg-green-900/50 dark:text-green-100"

  defp badge_tone(:red), do: "bg-red-100 text-red-900 dark:bg-red-900/50 dark:text-red-100"

  defp badge_tone(:yellow),
    do: "bg-yellow-100 text-yellow-900 dark:bg-yellow-900/50 dark:text-yellow-100"

  defp badge_tone(:gray), do: "bg-gray-100 text-gray-800 dark:bg-gray-700 dark:text-gray-100"

  defp badge_tone(:plain),
    do: "border border-gray-300 text-gray-700 dark:border-gray-600 dark:text-gray-200"

  # A shape for each, for eyes that do not tell the colours.
  defp mark(%{tone: :green} = assigns) do
    ~H"""
    <svg class="h-2.5 w-2.5" viewBox="0 0 10 10" aria-hidden="true">
      <path d="M1.5 5.5l2.5 2.5 4.5-6" fill="none" stroke="currentColor" stroke-width="1.8" />
    </svg>
    """
  end

  defp mark(%{tone: :red} = assigns) do
    ~H"""
    <svg class="h-2.5 w-2.5" viewBox="0 0 10 10" aria-hidden="true">
      <path d="M2 2l6 6M8 2l-6 6" fill="none" stroke="currentColor" stroke-width="1.8" />
    </svg>
    """
  end

  defp mark(%{tone: :yellow} = assigns) do
    ~H"""
    <svg class="h-2.5 w-2.5" viewBox="0 0 10 10" aria-hidden="true">
      <circle cx="5" cy="5" r="3.6" fill="none" stroke="currentColor" stroke-width="1.4" /><path
        d="M5 3v2.2l1.4 1"
        fill="none"
        stroke="currentColor"
        stroke-width="1.2"
      />
    </svg>
    """
  end

  defp mark(%{tone: :gray} = assigns) do
    ~H"""
    <svg class="h-2.5 w-2.5" viewBox="0 0 10 10" aria-hidden="true">
      <path d="M3.2 2v6M6.8 2v6" fill="none" stroke="currentColor" stroke-width="1.6" />
    </svg>
    """
  end

  defp mark(assigns), do: ~H""

  attr(:text, :any, required: true)
  attr(:class, :string, default: "")

  # What strangers wrote: apart from the text around it, whatever its direction.
  def foreign(assigns) do
    assigns = assign(assigns, :shown, Safe.line(assigns.text))

    ~H"""
    <bdi class={@class}><%= @shown %></bdi>
    """
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

  # --- what is to be copied

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
  attr(:rows, :integer, default: nil)

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
        rows={@rows || rows(@value)}
        wrap="off"
        spellcheck="false"
        dir="ltr"
        class={["mt-1", @classes]}
      ><%= @value %></textarea>
    </div>
    """
  end

  attr(:id, :string, required: true)
  attr(:label, :string, required: true)

  defp copy_button(assigns) do
    ~H"""
    <.button
      phx-click={JS.dispatch("webhooks:copy", to: "##{@id}")}
      aria-label={"#{t(:copy)}: #{@label}"}
    >
      <%= t(:copy) %>
    </.button>
    """
  end

  defp rows(text), do: text |> String.split("\n") |> length() |> max(2) |> min(18)

  attr(:id, :string, required: true)
  attr(:label, :string, required: true)
  attr(:text, :string, required: true)

  # Text of a stranger, in lines; can be scrolled by keyboard.
  def foreign_block(assigns) do
    assigns = assign(assigns, shown: Safe.block(assigns.text), focus_class: @focus)

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

  attr(:rows, :list, required: true, doc: "`{term, text}`, the text may be `Hidden`")

  def facts(assigns) do
    ~H"""
    <dl class="text-sm divide-y divide-gray-200 dark:divide-gray-700">
      <div
        :for={{name, text} <- @rows}
        :if={Hidden.shown(text) not in [nil, ""]}
        class="py-2 sm:grid sm:grid-cols-4 sm:gap-4"
      >
        <dt class="font-medium text-gray-900 dark:text-gray-100"><%= name %></dt>
        <dd class="sm:col-span-3 min-w-0 break-words text-gray-700 dark:text-gray-200">
          <bdi><%= text |> Hidden.shown() |> Safe.line() %></bdi>
        </dd>
      </div>
    </dl>
    """
  end
end
