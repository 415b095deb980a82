defmodule Plausible.Webhooks.InstallShapesTest do
  # Other shapes of the files that the installer changes, and files that it leaves alone.
  use Plausible.Webhooks.InstallCase, async: true

  @app "lib/plausible/application.ex"
  @css "assets/css/app.css"
  @events "lib/plausible/ingestion/event.ex"
  @goals "lib/plausible/goals/goals.ex"
  @router "lib/plausible_web/router.ex"
  @runtime "config/runtime.exs"
  @sidebar "lib/plausible_web/views/layout_view.ex"
  @traffic "lib/workers/traffic_change_notifier.ex"
  @action "lib/plausible_web/controllers/site_controller.ex"
  @inside {:path, "vendor/plausible-webhooks/elixir_wrapper/plausible_webhooks_phoenix"}

  # {file, what is replaced, by what, what the installer adds}
  for {path, from, to, added} <- [
        {@events, ~r/buffered\)|buffered\}/, "good\\0",
         ["    Plausible.Webhooks.events_buffered(goodbuffered)"]},
        {@app, "endpoint\n", "Sample.Endpoint\n", [~r/Host.Plausible.options\(\)/]},
        {@app, "Sample.PubSub},", "Sample.PubSub, pool_size: 2},", [~r/Plausible.Webhooks,/]},
        {@traffic, ">= notification", "> notification", [~r/:spike/, ~r/:drop/]},
        {@traffic, "stats = %{sources: [], pages: []}", "sources = []",
         [~r/sources: sources,\n +at: now/, ~r/:drop/]},
        {@traffic, ", now)", ")", [~r/pages: stats.pages\n/, ~r/threshold\n/]},
        {@goals, "Repo.update(goal, fields)", "goal |> Repo.update(fields)",
         [~r/\(site.id\)/, ~r/\(goal.site_id\)/, ~r/\(site_id\)/, ~r/\(site.id\)/]},
        {@goals, ~r/deleted = (.*)\n\n +case deleted do/, "case \\1 do",
         [~r/\(site.id\)/, ~r/\(goal.site_id\)/, ~r/tap.*\(site_id\)/, ~r/\(site.id\)/]},
        {@router, ~r/get (.*)/, "get(\\1)",
         [~s|  get("/:domain/settings/webhooks/*view", SiteController, :settings_webhooks)|]},
        {@router, "/:domain", "/:website", [~r|"/:website/settings/webhooks/\*view"|]},
        {@sidebar, ~r/if regular_site. do\s+(%.*)\s+end,/, "\\1,",
         [
           """
                 if Application.get_env(:plausible, Plausible.Webhooks) do
                   %{key: "Webhooks", value: "webhooks", icon: :bolt}
                 end,\
           """
         ]},
        {@sidebar, "if regular_site? do", "if regular_site? || x() do",
         [~r/if \(regular_site\? \|\| x\(\)\) && Application.get_env\(/]},
        {@sidebar, ~r/if regular_site. do\s+%\{(.*)\}\s+end,([^|]*)\|>.*/, "[\\1],\\2",
         [~s|      [key: "Webhooks", value: "webhooks", icon: :bolt],|]},
        {@sidebar, ~r/%\{key: "Integrations".*\}/,
         "%{key: \"More\", value: [\n  %{key: \"Integrations\", value: \"integrations\"},\n" <>
           "  %{key: \"Other\", value: \"other\"}\n]}",
         [~r/\A  if Application.get_env.*\n    %\{key: "Webhooks", value: "webhooks"\}\n  end,\z/]},
        {"Dockerfile", "make gcc", "make gcc libstdc++", [~r/simdjson-dev/, ~r/libcurl/]}
      ] do
    test "#{path} with #{inspect(to)} gets its lines", %{root: root} do
      replace(root, unquote(path), unquote(Macro.escape(from)), unquote(to))
      blocks = added(root, unquote(path))
      expected = unquote(Macro.escape(added))
      assert length(blocks) == length(expected)

      for {block, expected} <- Enum.zip(blocks, expected),
          do:
            if(is_binary(expected), do: assert(block == expected), else: assert(block =~ expected))
    end
  end

  test "templates of LiveView 0.20 and the configuration of Tailwind 3", %{root: root} do
    templates = "lib/plausible_web/templates/site"
    write(root, "#{templates}/settings_goals.html.heex", "<%= live_render(@conn, Goals) %>\n")
    write(root, "assets/tailwind.config.js", ~s(content: [\n  "../lib/**/*.ex"\n]\n))
    assert [template] = added(root, "#{templates}/settings_webhooks.html.heex")
    assert template =~ ~r/\A<%= .*live\(.*\) %>\z/s

    assert added(root, "assets/tailwind.config.js", dependency: {:path, "w"}) ==
             [~s(  "../w/lib/plausible_web/**/*.ex",)]

    refute Enum.any?(plan(root), &(&1.path == @css))
  end

  test "files with CRLF keep it, and added lines have it", %{root: root} do
    for {path, text} <- snapshot(root), do: write(root, path, String.replace(text, "\n", "\r\n"))
    changes = plan(root)

    for %{result: {:edit, _old, new}} = change <- changes do
      assert added(change) != []
      refute new =~ ~r/[^\r]\n/, change.path
    end

    Installer.write!(root, changes)
    assert Enum.all?(plan(root), &(&1.result == :done))
  end

  # {file, what is replaced, by what, what the reason contains}
  for {path, from, to, why} <- [
        {"mix.exs", "defp deps do", "defp dependencies do", "no function deps"},
        {"mix.exs", "defmodule", "defmodule (", "it is not valid Elixir"},
        {@app, "Phoenix.PubSub", "Other.PubSub", "PubSub"},
        {@app, ",\n      endpoint", "", "endpoint"},
        {@app, "|> Enum.reject(&is_nil/1)", "", "nil"},
        {@app, ~r/,\s+endpoint/, ", endpoint", "line of its own"},
        {@events, "build_and_buffer", "build", "build_and_buffer"},
        {@events, "buffered: buffered", "buffered: kept()", "variable"},
        {@events, "    {:ok,", "    one(); {:ok,", "line of its own"},
        {@traffic, "visitors < notification.threshold", "low?(notification)", "drop"},
        {@traffic, ~r/\}\n\n +mail\(notification, stats/, "}; mail(notification, stats",
         "spike is not on a line of its own"},
        {@goals, "def create(", "def make(", "create"},
        {@goals, "def update(goal, fields) do\n    Repo.update(goal, fields)\n  end",
         "def update(goal, fields), do: Repo.update(goal, fields)", "update"},
        {@goals, ~r/\(site\)\s+:ok/, "(site); :ok", "line of its own"},
        # A pipe would take only the function, or only the right side of the operator.
        {@goals, ~r/Repo.transaction\((.*)\)/, "Repo.transaction \\1",
         "create ends with .*parentheses"},
        {@goals, "Repo.transaction(", "goal[:done] || Repo.transaction(", "create ends with"},
        {@goals, "Repo.transaction(fn ->",
         "Repo.transaction(fn -> Plausible.Webhooks.goals_changed(site.id)\n",
         "create calls goals_changed inside"},
        {@goals, "Repo.delete_all(site)\n",
         "Plausible.Webhooks.goals_changed(site.id)\n    Repo.delete_all(site)\n",
         "delete_404 calls goals_changed before"},
        {@router, ":settings_integrations", ":settings_other", "integrations"},
        {@action, "settings_integrations(", "integrations(", "settings_integrations"},
        {@sidebar, "value: \"integrations\"", "value: integrations()", "integrations"},
        {@sidebar, "icon: :plug}", "icon:\n\n\n\n:plug}", "too long"},
        {@runtime, "config_dir =", "dir =", "config_dir"},
        {@runtime, "secret_key_base =", "secret =", "secret_key_base"},
        {@runtime, "get_var_from_path_or_env(config_dir, \"KEY\")", "\"\"",
         "get_var_from_path_or_env"},
        {"Dockerfile", "libstdc++", "ncurses", "libstdc"},
        {"Dockerfile", "gcc", "clang", "gcc"},
        {"Dockerfile", ~r/.*gcc(.*\n)*/, "RUN apk add gcc libstdc++", "the builder's packages"},
        {@css, "plausible_web", "other_web", "plausible_web"}
      ] do
    test "#{path} with #{inspect(to)} is left alone: #{why}", %{root: root} do
      replace(root, unquote(path), unquote(Macro.escape(from)), unquote(to))
      change = change(root, unquote(path))
      assert {:unknown, reason} = change.result
      assert reason =~ ~r/#{unquote(why)}/
      assert change.lines != [] and change.where != ""
    end
  end

  test "a missing file is left alone, and so is one with two places", %{root: root} do
    File.rm!(Path.join(root, "Dockerfile"))
    assert change(root, "Dockerfile").result == {:unknown, "there is no such file"}
    text = read(root, @events)
    write(root, @events, text <> String.replace(text, "Events", "Other"))
    assert {:unknown, "build_and_buffer does not" <> _} = change(root, @events).result
  end

  test "a Dockerfile without COPY mix.exs has no place for a package inside", %{root: root} do
    replace(root, "Dockerfile", "COPY mix.exs ./", "COPY . .")
    assert {:edit, _old, _new} = change(root, "Dockerfile").result
    assert {:unknown, "no COPY mix.exs"} = change(root, "Dockerfile", dependency: @inside).result
  end

  describe "a part that is there already" do
    test "is completed when a part is missing", %{root: root} do
      for {path, part} <- [
            {@goals, ~r/ +\|> tap.*\(goal.site_id\) end\)\n/},
            {@traffic, ~r/ +Plausible.Webhooks.traffic_change\(:drop.*?\}\)\n\n/s}
          ] do
        {:edit, _old, whole} = change(root, path).result
        half = String.replace(whole, part, "")
        assert half != whole
        write(root, path, half)
        assert {:edit, ^half, ^whole} = change(root, path).result
      end
    end

    for child <- [
          "{Webhooks, Webhooks.Host.Plausible.options()}",
          "{Webhooks, webhooks()}",
          "Supervisor.child_spec({Plausible.Webhooks, webhooks()}, id: :webhooks)"
        ] do
      test "the child #{child} is found", %{root: root} do
        replace(root, @app, "Children do\n", "Children do\n  alias Plausible.Webhooks\n")
        replace(root, @app, "      endpoint", "      #{unquote(child)},\n      endpoint")
        assert change(root, @app).result == :done
      end
    end

    for {path, from, to} <- [
          {@app, "Children do\n", "Children do\n  alias Plausible.Webhooks\n"},
          {@runtime, "import Config", "import Config\nOther.Config.from_env(1)"},
          {@sidebar, "    [\n", "    page == \"webhooks\"\n\n    [\n"}
        ] do
      test "#{path} with #{inspect(to)} only mentions webhooks", %{root: root} do
        replace(root, unquote(path), unquote(from), unquote(to))
        assert {:edit, _old, _new} = change(root, unquote(path)).result
      end
    end

    test "an alias of the configuration and another form of the entry are found", %{root: root} do
      Installer.write!(root, plan(root))
      config = "Plausible.Webhooks.Host.Plausible.Config"
      replace(root, @runtime, "#{config}.from_env", "Ours.from_env")
      replace(root, @runtime, "import Config", "import Config\nalias #{config}, as: Ours")
      replace(root, @sidebar, ~s("webhooks"), ~S("/#{domain}/settings/webhooks"))
      assert Enum.all?(plan(root), &(&1.result == :done))
    end

    test "a migration under another name is found", %{root: root} do
      path = "priv/repo/migrations/20270101000000_hooks.exs"
      write(root, path, "def up, do: Plausible.Webhooks.Migrations.up()")
      assert change(root, path).result == :done
      refute Enum.any?(plan(root), &(&1.path =~ "add_plausible_webhooks"))
    end

    test "lines that name another source of the package are pointed out", %{root: root} do
      Installer.write!(root, plan(root, dependency: @inside))
      replace(root, "mix.exs", ~r/path: "vendor.*"/, ~s(git: "https://example.com/w.git"))
      css = change(root, @css)
      assert {:unknown, "line 2 names the package in another place" <> _} = css.result
      assert [~s(@source "../../deps/plausible_webhooks_phoenix/) <> _] = css.lines
      image = change(root, "Dockerfile")
      assert {:unknown, "line 6 copies the package from another place" <> _} = image.result
      assert image.lines == []

      replace(root, "Dockerfile", ~r/COPY vendor.*\n/, "")
      replace(root, @css, ~r/@source .*webhooks.*/, hd(css.lines))
      assert Enum.all?(plan(root), &(&1.result == :done))

      replace(root, "mix.exs", ~r/git: ".*"/, ~s(path: "#{elem(@inside, 1)}"))
      image = change(root, "Dockerfile")
      assert {:unknown, "it does not copy the folder" <> _} = image.result
      assert image.lines == ["COPY vendor/plausible-webhooks ./vendor/plausible-webhooks"]
    end
  end
end
