defmodule Plausible.Webhooks.Installer.Page do
  @moduledoc false
  # What the settings page needs: route, action, template, an entry in the sidebar, a plug for
  # test addresses, and a source for Tailwind.

  import Plausible.Webhooks.Installer.Step,
    only: [before!: 4, behind!: 4, one!: 3, unknown!: 1, unknown!: 2]

  alias Plausible.Webhooks.Installer.{Build, Dependency, Source, Step}

  @templates "lib/plausible_web/templates/site"
  # Where webhooks are switched off, as in Plausible's own tests, there is no entry.
  @configured "Application.get_env(:plausible, Plausible.Webhooks)"

  @plug "plug(PlausibleWeb.WebhookTestAddress)"

  @spec steps(Build.context()) :: [Step.t()]
  def steps(context) do
    [
      %Step{
        path: "lib/plausible_web/router.ex",
        where: "next to the route of the integrations",
        lines: [~s(get "/:domain/settings/webhooks/*view", SiteController, :settings_webhooks)],
        places: &route/1
      },
      %Step{
        path: "lib/plausible_web/controllers/site_controller.ex",
        where: "after settings_integrations",
        lines: tl(action_lines()),
        places: &action/1
      },
      %Step{
        path: "lib/plausible_web/endpoint.ex",
        where: "in front of Plug.Parsers, which reads the body",
        lines: [@plug, ""],
        places: &endpoint/1
      },
      %Step{
        path: Path.join(@templates, "settings_webhooks.html.heex"),
        kind: :new,
        where: "as a file of its own",
        lines: [template_line(context.root)]
      },
      %Step{
        path: "lib/plausible_web/views/layout_view.ex",
        where: "in the sidebar of a site's settings, after the integrations",
        lines: [
          "if regular_site? and #{@configured} do",
          "  %{key: \"Webhooks\", value: \"webhooks\", icon: :bolt}",
          "end,"
        ],
        places: &sidebar/1
      },
      styles(context)
    ]
  end

  # --- the route

  defp route(source) do
    if routes(source, :settings_webhooks) == [] do
      node =
        source
        |> routes(:settings_integrations)
        |> one!(
          "no route to settings_integrations",
          "more than one route to settings_integrations"
        )

      renamed = renamed!(source, node)
      ours = Enum.map(renamed, &with_views/1)
      if ours == renamed, do: unknown!("that of the integrations has another path")
      [{Source.last_line(node), nil, ours}]
    else
      []
    end
  end

  # Every view has an address below the page's.
  defp with_views(line), do: String.replace(line, ~r"/webhooks(?=[\"'])", "/webhooks/*view")

  defp routes(source, action) do
    Source.find(source.ast, fn
      {:get, _meta, args} when is_list(args) -> Enum.any?(args, &(Source.literal(&1) == action))
      _other -> false
    end)
  end

  # The lines of the integrations under our name, in the form that this version of
  # Plausible gives them.
  defp renamed!(source, node) do
    lines = for n <- Source.first_line(node)..Source.last_line(node), do: Source.line(source, n)
    ours = Enum.map(lines, &renamed/1)
    if length(lines) > 5, do: unknown!("that of the integrations is too long to be followed")
    if ours == lines, do: unknown!("that of the integrations has another name")
    ours
  end

  defp renamed(line) do
    line
    |> String.replace("integrations", "webhooks")
    |> String.replace("Integrations", "Webhooks")
    |> String.replace(~r/(icon: ):\w+/, "\\1:bolt")
  end

  # --- the plug

  defp endpoint(source) do
    if plugs(source, [:PlausibleWeb, :WebhookTestAddress]) == [] do
      why = "no one plug Plug.Parsers"
      parsers = one!(plugs(source, [:Plug, :Parsers]), why, why)
      [before!(source, parsers, [@plug, ""], "Plug.Parsers is not on lines of its own")]
    else
      []
    end
  end

  defp plugs(source, module) do
    Source.find(source.ast, &match?({:plug, _meta, [{:__aliases__, _, ^module} | _]}, &1))
  end

  # --- the action

  defp action_lines do
    [
      "",
      "def settings_webhooks(conn, _params) do",
      "  render(Plausible.Webhooks.Host.Plausible.page(conn), \"settings_webhooks.html\",",
      "    dogfood_page_path: \"/:dashboard/settings/webhooks\",",
      "    connect_live_socket: true,",
      "    layout: {PlausibleWeb.LayoutView, \"site_settings.html\"}",
      "  )",
      "end"
    ]
  end

  defp action(source) do
    case Source.functions(source, [:settings_webhooks, :settings_integrations]) do
      [] ->
        unknown!("no action settings_integrations")

      functions ->
        node = List.last(functions).node

        if Enum.any?(functions, &(&1.name == :settings_webhooks)),
          do: [],
          else: [{Source.last_line(node), Source.first_line(node), action_lines()}]
    end
  end

  # --- the template

  # Braces came with LiveView 1.0, whose formatter rewrites the older form.
  defp template_line(root) do
    goals = File.read(Path.join([root, @templates, "settings_goals.html.heex"]))
    live = "PlausibleWeb.Live.WebhookSettings.live(@conn, @webhooks_session)"

    if match?({:ok, _text}, goals) and elem(goals, 1) =~ ~r/<%=\s*live_render/,
      do: "<%= #{live} %>",
      else: "{#{live}}"
  end

  # --- the sidebar

  defp sidebar(source) do
    if Source.any?(source.ast, &ours?/1) do
      []
    else
      entry =
        one!(
          entries(source.ast),
          "no entry with the value \"integrations\"",
          "more than one entry with the value \"integrations\""
        )

      alone = "that of the integrations is not on lines of its own"
      {behind, _like, _lines} = behind!(source, entry, [], alone)
      [{behind, nil, guarded(source, entry, renamed!(source, entry))}]
    end
  end

  defp ours?({key, value}), do: Source.literal(key) == :value and path?(value)
  defp ours?(_node), do: false

  # The name, or the end of a path, which may hold the site's domain.
  defp path?({:<<>>, _meta, parts}), do: parts |> List.last() |> path?()
  defp path?(text) when is_binary(text), do: text =~ ~r"\A(.*/)?webhooks\z"
  defp path?(node), do: node |> Source.literal() |> is_binary() and path?(Source.literal(node))

  # The entries are in the innermost list that is not a keyword list.
  defp entries(ast) do
    for {:__block__, _meta, [list]} when is_list(list) <- Macro.prewalker(ast),
        entry <- list,
        not match?({_key, _value}, entry),
        Source.any?(entry, &(Source.literal(&1) == "integrations")),
        entries(entry) == [],
        do: entry
  end

  defp guarded(source, entry, [first | rest] = ours) do
    case {entry, Regex.run(~r/^(\s*if )(.*) do$/, first)} do
      {{:if, _meta, [condition | _]}, [_all, before, text]} ->
        ["#{before}#{both(condition, text)} do" | rest]

      _unguarded ->
        # A list that keeps nil cannot hold a condition.
        if Source.remote_calls(source.ast, :reject) == [], do: ours, else: in_condition(ours)
    end
  end

  defp both(condition, text) do
    if String.ends_with?("#{Source.variable(condition)}", "?"),
      do: "#{text} and #{@configured}",
      else: "(#{text}) && #{@configured}"
  end

  defp in_condition([first | _] = ours) do
    [space] = Regex.run(~r/^\s*/, first)
    inner = List.update_at(ours, -1, &String.replace_suffix(&1, ",", ""))
    ["#{space}if #{@configured} do"] ++ Enum.map(inner, &"  #{&1}") ++ ["#{space}end,"]
  end

  # --- the styles

  defp styles(%{root: root, dependency: dependency}) do
    folder = Path.join(["..", Dependency.folder(dependency, root), "lib/plausible_web"])
    mark = Dependency.mark(dependency, root)

    {path, where, line, theirs, offset} =
      if File.regular?(Path.join(root, "assets/tailwind.config.js")),
        # In front of theirs: the last one may have no comma.
        do:
          {"assets/tailwind.config.js", "in content", ~s("#{folder}/**/*.ex",),
           ~r{^\s*["']\.\./lib/[^"']*["'],?$}, -1},
        else:
          {"assets/css/app.css", "with the others", ~s(@source "../#{folder}";),
           ~r{^@source "[./]*/lib/plausible_web";}, 0}

    %Step{
      path: path,
      kind: :text,
      where: where,
      lines: [line],
      places: &style_source(&1, theirs, line, offset, mark),
      note: style_note(dependency)
    }
  end

  # A relative path out of Plausible's folder holds only where the two lie as they do here.
  defp style_note(dependency) do
    build = "then: mix assets.build"

    if Dependency.to_copy(dependency) == :outside,
      do:
        "the source is outside of this folder. A build finds it only where the package lies at " <>
          "the same place; #{build}",
      else: build
  end

  # `mark` tells the folder that mix.exs names from another one.
  defp style_source(source, theirs, line, offset, mark) do
    ours =
      Source.matching(
        source,
        ~r/^\s*(@source\s*)?["'].*(plausible[-_]webhooks|#{Regex.escape(mark)})/
      )

    stale = Enum.reject(ours, &String.contains?(Source.line(source, &1), mark))

    case {stale, ours, Source.matching(source, theirs)} do
      {[at | _], _ours, _theirs} ->
        unknown!(
          "line #{at} names the package in another place than mix.exs, and must be removed",
          if(ours == stale, do: [line], else: [])
        )

      {[], [_ | _], _theirs} ->
        []

      {[], [], []} ->
        unknown!("no source lib/plausible_web")

      {[], [], [at | _]} ->
        [{at + offset, at, [line]}]
    end
  end
end
