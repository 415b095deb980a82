defmodule Plausible.Webhooks.Installer.Page do
  @moduledoc false
  # What brings the settings page into Plausible's: route, action, template, an entry
  # in the sidebar, and a source for Tailwind.

  alias Plausible.Webhooks.Installer.{Build, Dependency, Source, Step}

  @templates "lib/plausible_web/templates/site"

  @spec steps(Build.context()) :: [Step.t()]
  def steps(context),
    do: [route(), action(), template(context), sidebar(), styles(context)]

  # --- lib/plausible_web/router.ex

  defp route do
    %Step{
      path: "lib/plausible_web/router.ex",
      where: "next to that of the integrations",
      lines: [~s(get "/:domain/settings/webhooks", SiteController, :settings_webhooks)],
      edit: Step.elixir(&route/1)
    }
  end

  defp route(source) do
    case {routes(source, :settings_webhooks), routes(source, :settings_integrations)} do
      {[_ | _], _next_to} -> :done
      {[], [node]} -> like_integrations(source, node)
      {[], []} -> {:unknown, "no route to settings_integrations"}
      {[], _several} -> {:unknown, "more than one route to settings_integrations"}
    end
  end

  defp routes(source, action) do
    Source.find(source.ast, fn
      {:get, _meta, args} when is_list(args) -> Enum.any?(args, &(Source.literal(&1) == action))
      _other -> false
    end)
  end

  # The same, with another name: in Plausible's own form of the day.
  defp like_integrations(source, node) do
    with {:ok, ours} <- like(source, node),
         do: {:ok, Source.insert_after(source, Source.last_line(node), ours)}
  end

  defp like(source, node) do
    lines = for n <- Source.first_line(node)..Source.last_line(node), do: Source.line(source, n)
    ours = Enum.map(lines, &renamed/1)

    cond do
      length(lines) > 5 -> {:unknown, "that of the integrations is too long to be followed"}
      ours == lines -> {:unknown, "that of the integrations has another name"}
      true -> {:ok, ours}
    end
  end

  defp renamed(line) do
    line
    |> String.replace("integrations", "webhooks")
    |> String.replace("Integrations", "Webhooks")
    |> String.replace(~r/(icon: ):\w+/, "\\1:bolt")
  end

  # --- lib/plausible_web/controllers/site_controller.ex

  @action [
    "",
    "def settings_webhooks(conn, _params) do",
    "  render(conn, \"settings_webhooks.html\",",
    "    dogfood_page_path: \"/:dashboard/settings/webhooks\",",
    "    connect_live_socket: true,",
    "    layout: {PlausibleWeb.LayoutView, \"site_settings.html\"}",
    "  )",
    "end"
  ]

  defp action do
    %Step{
      path: "lib/plausible_web/controllers/site_controller.ex",
      where: "behind settings_integrations",
      lines: tl(@action),
      edit: Step.elixir(&action/1)
    }
  end

  defp action(source) do
    there = Source.functions(source, [:settings_webhooks])

    case {there, Source.functions(source, [:settings_integrations])} do
      {[_ | _], _next_to} ->
        :done

      {[], []} ->
        {:unknown, "no action settings_integrations"}

      {[], functions} ->
        %{node: node} = List.last(functions)
        lines = Source.indented(source, Source.first_line(node), @action)
        {:ok, Source.insert_after(source, Source.last_line(node), lines)}
    end
  end

  # --- lib/plausible_web/templates/site/settings_webhooks.html.heex

  defp template(%{root: root, eol: eol}) do
    {before, behind} = if old_templates?(root), do: {"<%= ", " %>"}, else: {"{", "}"}

    lines = [
      before <> "live_render(@conn, PlausibleWeb.Live.WebhookSettings,",
      "  session: Plausible.Webhooks.Host.Plausible.page_session(@conn)",
      ")" <> behind
    ]

    %Step{
      path: Path.join(@templates, "settings_webhooks.html.heex"),
      where: "as a file of its own",
      lines: lines,
      edit: Step.new(lines, eol)
    }
  end

  # Braces came with LiveView 1.0; its formatter makes them of the older form.
  defp old_templates?(root) do
    case File.read(Path.join([root, @templates, "settings_goals.html.heex"])) do
      {:ok, text} -> text =~ ~r/<%=\s*live_render/
      {:error, _reason} -> false
    end
  end

  # --- lib/plausible_web/views/layout_view.ex

  # Where webhooks are switched off, as in Plausible's own tests, there is no entry.
  @configured "Application.get_env(:plausible, Plausible.Webhooks)"

  defp sidebar do
    %Step{
      path: "lib/plausible_web/views/layout_view.ex",
      where: "in the sidebar of a site's settings, behind the integrations",
      lines: [
        "if regular_site? and #{@configured} do",
        "  %{key: \"Webhooks\", value: \"webhooks\", icon: :bolt}",
        "end,"
      ],
      edit: Step.elixir(&sidebar/1)
    }
  end

  defp sidebar(source) do
    there = Source.find(source.ast, &entry?/1)

    case {there, entries(source.ast)} do
      {[_ | _], _entries} -> :done
      {[], [entry]} -> beside(source, entry)
      {[], []} -> {:unknown, "no entry with the value \"integrations\""}
      {[], _several} -> {:unknown, "more than one entry with the value \"integrations\""}
    end
  end

  defp entry?({key, value}), do: Source.literal(key) == :value and path?(value)
  defp entry?(_node), do: false

  # Its name, or the end of a path, which may have the site's domain in it.
  defp path?({:<<>>, _meta, parts}), do: parts |> List.last() |> path?()
  defp path?(text) when is_binary(text), do: text =~ ~r"\A(.*/)?webhooks\z"
  defp path?(node), do: node |> Source.literal() |> is_binary() and path?(Source.literal(node))

  # The innermost list that is no keyword list has the entries.
  defp entries(ast) do
    for {:__block__, _meta, [list]} when is_list(list) <- Macro.prewalker(ast),
        entry <- list,
        not pair?(entry) and integrations?(entry) and entries(entry) == [],
        do: entry
  end

  defp pair?(entry), do: match?({_key, _value}, entry)
  defp integrations?(node), do: Source.find(node, &(Source.literal(&1) == "integrations")) != []

  defp beside(source, entry) do
    with true <- Source.alone?(source, entry) and Source.comma?(source, entry),
         {:ok, ours} <- like(source, entry) do
      {:ok, Source.insert_after(source, Source.last_line(entry), guarded(source, entry, ours))}
    else
      false -> {:unknown, "that of the integrations is not on lines of its own"}
      unknown -> unknown
    end
  end

  defp guarded(source, entry, [first | rest] = ours) do
    case {entry, Regex.run(~r/^(\s*if )(.*) do$/, first)} do
      {{:if, _meta, [condition | _]}, [_all, before, text]} ->
        ["#{before}#{both(condition, text)} do" | rest]

      _unguarded ->
        # A list that is not rid of nil may hold no condition.
        if Source.remote_calls(source.ast, :reject) == [], do: ours, else: in_condition(ours)
    end
  end

  defp both(condition, text) do
    cond do
      not String.ends_with?("#{Source.variable(condition)}", "?") -> "(#{text}) && #{@configured}"
      true -> "#{text} and #{@configured}"
    end
  end

  defp in_condition([first | _] = ours) do
    [space] = Regex.run(~r/^\s*/, first)
    {last, others} = List.pop_at(ours, -1)
    inner = others ++ [String.replace_suffix(last, ",", "")]
    ["#{space}if #{@configured} do"] ++ Enum.map(inner, &"  #{&1}") ++ ["#{space}end,"]
  end

  # --- assets

  defp styles(%{root: root, dependency: dependency}) do
    folder = Path.join(["..", Dependency.folder(dependency, root), "lib/plausible_web"])
    mark = Dependency.mark(dependency, root)

    if File.regular?(Path.join(root, "assets/tailwind.config.js")) do
      lines = [~s("#{folder}/**/*.ex",)]

      %Step{
        path: "assets/tailwind.config.js",
        where: "in content",
        lines: lines,
        # In front: theirs may be the last one, which has no comma.
        edit: Step.text(&source(&1, ~r{^\s*["']\.\./lib/[^"']*["'],?$}, lines, -1, mark))
      }
    else
      lines = [~s(@source "../#{folder}";)]

      %Step{
        path: "assets/css/app.css",
        where: "with the others",
        lines: lines,
        edit: Step.text(&source(&1, ~r{^@source "[./]*/lib/plausible_web";}, lines, 0, mark))
      }
    end
  end

  # `mark` is what a source of ours has in it when it is the one that mix.exs names.
  defp source(source, like, lines, behind, mark) do
    numbers = fn like ->
      for n <- 1..length(source.lines), Source.line(source, n) =~ like, do: n
    end

    ours = numbers.(~r/^\s*(@source\s*)?["'].*(plausible[-_]webhooks|#{Regex.escape(mark)})/)
    stale = Enum.reject(ours, &String.contains?(Source.line(source, &1), mark))
    numbers = numbers.(like)

    cond do
      ours != [] and stale == [] ->
        :done

      stale != [] ->
        {:unknown,
         "line #{hd(stale)} names the package in another place than mix.exs, and is to be " <>
           "taken away", if(ours == stale, do: lines, else: [])}

      numbers == [] ->
        {:unknown, "no source lib/plausible_web"}

      true ->
        at = hd(numbers)
        {:ok, Source.insert_after(source, at + behind, Source.indented(source, at, lines))}
    end
  end
end
