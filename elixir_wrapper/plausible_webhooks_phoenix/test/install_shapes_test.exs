defmodule Plausible.Webhooks.InstallShapesTest do
  use Plausible.Webhooks.InstallCase, async: true

  describe "the shapes of other years" do
    test "build_and_buffer/1, other names", %{root: root} do
      older(root, "lib/plausible/ingestion/event.ex")

      assert Installer.diff(of(plan(root), "lib/plausible/ingestion/event.ex")) =~ """
                  # what was kept is written by the buffer
             +    Plausible.Webhooks.events_buffered(good)
                  {:ok, %{dropped: bad, buffered: good}}
             """
    end

    test "the notifier as one loop, with other names and no stats", %{root: root} do
      older(root, "lib/workers/traffic_change_notifier.ex")

      assert added(of(plan(root), "lib/workers/traffic_change_notifier.ex")) == [
               """
                           Plausible.Webhooks.traffic_change(:spike, n.site, %{
                             current_visitors: visitors,
                             threshold: n.threshold,
                             sources: sources
                           })
               """,
               """
                           Plausible.Webhooks.traffic_change(:drop, n.site, %{
                             current_visitors: visitors,
                             threshold: n.threshold
                           })
               """
             ]
    end

    test "goals without transactions, and a case around one", %{root: root} do
      older(root, "lib/plausible/goals/goals.ex")
      # `def update(...), do:` has no lines to put one between.
      assert {:unknown, why} = of(plan(root), "lib/plausible/goals/goals.ex").result
      assert why =~ "update"

      replace(
        root,
        "lib/plausible/goals/goals.ex",
        "def update(goal, params), do: Repo.insert(Map.merge(goal, params))",
        "def update(goal, params) do\n    Repo.insert(Map.merge(goal, params))\n  end"
      )

      change = of(plan(root), "lib/plausible/goals/goals.ex")

      assert added(change) == [
               "    |> tap(fn _result -> Plausible.Webhooks.goals_changed(site.id) end)",
               "    |> tap(fn _result -> Plausible.Webhooks.goals_changed(goal.site_id) end)",
               "    |> tap(fn _result -> Plausible.Webhooks.goals_changed(site_id) end)"
             ]

      {:edit, _old, new} = change.result
      assert new =~ ~r/\{:error, reason\}\n    end\n    \|> tap/
    end

    test "routes in a scope, entries that are keyword lists", %{root: root} do
      older(root, "lib/plausible_web/router.ex")
      older(root, "lib/plausible_web/views/layout_view.ex")
      changes = plan(root)

      assert added(of(changes, "lib/plausible_web/router.ex")) == [
               ~s|    get("/:website/settings/webhooks", SiteController, :settings_webhooks)|
             ]

      assert added(of(changes, "lib/plausible_web/views/layout_view.ex")) == [
               ~s|      [key: "Webhooks", value: "webhooks", icon: :bolt],|
             ]
    end

    test "a sidebar of plain maps", %{root: root} do
      guarded = """
            if regular_site? do
              %{key: "Integrations", value: "integrations", icon: :puzzle_piece}
            end,
      """

      plain = ~s|      %{key: "Integrations", value: "integrations", icon: :arrow_path},\n|
      replace(root, "lib/plausible_web/views/layout_view.ex", guarded, plain)

      assert added(of(plan(root), "lib/plausible_web/views/layout_view.ex")) == [
               """
                     if Application.get_env(:plausible, Plausible.Webhooks) do
                       %{key: "Webhooks", value: "webhooks", icon: :bolt}
                     end,\
               """
             ]
    end

    test "a sidebar whose guard has several conditions", %{root: root} do
      path = "lib/plausible_web/views/layout_view.ex"

      replace(
        root,
        path,
        ~r/if regular_site\? do(\s+%\{key: "Int)/,
        "if regular_site? || x() do\\1"
      )

      assert [ours] = added(of(plan(root), path))

      assert ours =~
               "if (regular_site? || x()) && Application.get_env(:plausible, Plausible.Webhooks) do\n"
    end

    test "a sidebar with the integrations under another entry: beside them, not beside it",
         %{root: root} do
      replace(
        root,
        "lib/plausible_web/views/layout_view.ex",
        ~s|%{key: "Integrations", value: "integrations", icon: :puzzle_piece}|,
        ~s|%{key: "More", value: [\n  %{key: "Integrations", value: "integrations"},\n| <>
          ~s|  %{key: "Other", value: "other"}\n]}|
      )

      assert added(of(plan(root), "lib/plausible_web/views/layout_view.ex")) == [
               """
                 if Application.get_env(:plausible, Plausible.Webhooks) do
                   %{key: "Webhooks", value: "webhooks"}
                 end,\
               """
             ]
    end

    test "an image whose builder has libstdc++ too", %{root: root} do
      replace(root, "Dockerfile", "make gcc libc-dev", "make gcc libc-dev libstdc++")
      assert [build, run] = added(of(plan(root), "Dockerfile"))
      assert build =~ "simdjson-dev" and run =~ "libcurl"

      assert Installer.diff(of(plan(root), "Dockerfile")) =~
               "certbot; fi\n+# for plausible_webhooks"
    end

    test "templates of LiveView 0.20, Tailwind 3", %{root: root} do
      older(root, "lib/plausible_web/templates/site/settings_goals.html.heex")
      older(root, "assets/tailwind.config.js")
      changes = plan(root)

      {:edit, nil, template} =
        of(changes, "lib/plausible_web/templates/site/settings_webhooks.html.heex").result

      assert template =~ ~r/\A<%= live_render\(.*\) %>\n\z/s

      assert added(of(changes, "assets/tailwind.config.js")) == [
               ~s|    "../../plausible-webhooks/elixir_wrapper/plausible_webhooks_phoenix| <>
                 ~s|/lib/plausible_web/**/*.ex",|
             ]

      refute Enum.any?(changes, &(&1.path == "assets/css/app.css"))
    end

    test "PubSub under another name, the endpoint as a module", %{root: root} do
      path = "lib/plausible/application.ex"
      replace(root, path, "Plausible.PubSub},", "Plausible.Other.PubSub, pool_size: 2},")
      replace(root, path, "        endpoint,", "        PlausibleWeb.Endpoint,")
      assert [child] = added(of(plan(root), path))
      assert child =~ "Host.Plausible.options()"
    end

    test "lines that end with CRLF: ours do too, and no other line changes", %{root: root} do
      for path <- files(), File.exists?(Path.join(root, path)) do
        write(root, path, String.replace(read(root, path), "\n", "\r\n"))
      end

      changes = plan(root)
      assert length(edits(changes)) == length(files())

      for %{result: {:edit, _old, new}} = change <- changes do
        assert added(change) != []
        refute new =~ ~r/[^\r]\n/, change.path
      end

      Installer.write!(root, changes)
      assert Enum.all?(plan(root), &(&1.result == :done))
    end
  end

  describe "what is not recognised" do
    for {path, from, to, why} <- [
          {"mix.exs", "defp deps do", "defp dependencies do", "no function deps"},
          {"lib/plausible/application.ex", "Phoenix.PubSub", "Other.PubSub", "PubSub"},
          {"lib/plausible/application.ex", "        endpoint,\n", "", "endpoint"},
          {"lib/plausible/application.ex", "|> Enum.reject(&is_nil/1)", "", "nil"},
          {"lib/plausible/ingestion/event.ex", "build_and_buffer", "build", "build_and_buffer"},
          {"lib/plausible/ingestion/event.ex", "buffered: buffered", "buffered: kept()",
           "variable"},
          {"lib/workers/traffic_change_notifier.ex", "visitors < notification.threshold",
           "low?(notification)", "drop"},
          {"lib/plausible/goals/goals.ex", "def create(", "def make(", "create"},
          {"lib/plausible_web/router.ex", ":settings_integrations", ":settings_other",
           "integrations"},
          {"lib/plausible_web/controllers/site_controller.ex", "settings_integrations(",
           "integrations(", "settings_integrations"},
          {"lib/plausible_web/views/layout_view.ex", "value: \"integrations\"",
           "value: integrations()", "integrations"},
          {"config/runtime.exs", ~S|get_var_from_path_or_env(config_dir, "SECRET_KEY_BASE", nil)|,
           ~S|System.get_env("SECRET_KEY_BASE")|, "get_var_from_path_or_env"},
          {"lib/plausible_web/views/layout_view.ex", ~S|icon: :puzzle_piece}|,
           "icon:\n\n\n\n:puzzle_piece}", "too long"},
          {"Dockerfile", "RUN apk add --no-cache openssl libstdc++",
           "RUN apk add --no-cache openssl", "libstdc"},
          {"config/runtime.exs", "config_dir =", "dir =", "config_dir"},
          {"config/runtime.exs", "secret_key_base =", "secret =", "secret_key_base"},
          {"Dockerfile", "libstdc++", "ncurses", "libstdc\\+\\+"},
          {"Dockerfile", "gcc libc-dev", "clang", "gcc"},
          {"assets/css/app.css", "@source \"../../lib/plausible_web\";", "", "plausible_web"}
        ] do
      test "#{path} with #{inspect(to)}: it is left alone, and the reason names #{why}",
           %{root: root} do
        replace(root, unquote(path), unquote(from), unquote(to))
        change = of(plan(root), unquote(path))
        assert {:unknown, reason} = change.result
        assert reason =~ ~r/#{unquote(why)}/
        assert change.lines != [] and change.where != ""
      end
    end

    @events "lib/plausible/ingestion/event.ex"
    @goals "lib/plausible/goals/goals.ex"
    @traffic "lib/workers/traffic_change_notifier.ex"

    for {path, from, to, why} <- [
          {@events, ~r/^ +(\{dropped, buffered\} = .*)\n +\{:ok, /m, "    \\1; {:ok, ",
           "line of its own"},
          {@traffic, ~r/\|> Map.put\(:pages, \[\]\)\s+notify/, "|> Map.put(:pages, []); notify",
           "spike is not on a line of its own"},
          {"lib/plausible/application.ex", ~r/Plausible.PubSub\},\s+endpoint,/,
           "Plausible.PubSub}, endpoint,", "line of its own"},
          {@goals, ~r/Repo.delete_all\(q\)\s+:ok/, "Repo.delete_all(q); :ok", "line of its own"},
          # A pipe would take the function, or what is behind the operator.
          {@goals, ~r/Repo.transaction\((fn ->\s+case insert_goal.*?end\n    end)\)/s,
           "Repo.transaction \\1", "create ends with .*parentheses"},
          {@goals, ~r/Repo.transaction\((fn ->\s+case insert_goal.*?end\n    end)\)/s,
           "params[:done] || Repo.transaction(\\1)", "create ends with"}
        ] do
      test "#{path} with #{inspect(to)}: ours would go to a wrong place", %{root: root} do
        replace(root, unquote(path), unquote(Macro.escape(from)), unquote(to))
        assert {:unknown, reason} = of(plan(root), unquote(path)).result
        assert reason =~ ~r/#{unquote(why)}/
      end
    end

    test "goals_changed where it is of no use", %{root: root} do
      tell = "Plausible.Webhooks.goals_changed(site.id)"
      replace(root, @goals, ~r/(case insert_goal\(site, params, opts\))/, "#{tell}\n      \\1")
      assert {:unknown, "create calls goals_changed inside" <> _} = of(plan(root), @goals).result

      File.cp!(fixture("plausible/#{@goals}"), Path.join(root, @goals))
      replace(root, @goals, "    Repo.delete_all(q)", "    #{tell}\n    Repo.delete_all(q)")

      assert {:unknown, "delete_404 calls goals_changed before" <> _} =
               of(plan(root), @goals).result
    end

    test "an image of one stage, or one that does not copy mix.exs", %{root: root} do
      write(root, "Dockerfile", "FROM alpine\nRUN apk add gcc libstdc++\nCOPY mix.exs ./\n")
      assert {:unknown, "the builder's packages" <> _} = of(plan(root), "Dockerfile").result

      File.cp!(fixture("plausible/Dockerfile"), Path.join(root, "Dockerfile"))
      replace(root, "Dockerfile", "COPY mix.exs ./", "COPY . .")
      assert {:edit, _old, _new} = of(plan(root), "Dockerfile").result
      inside = {:path, "vendor/w/elixir_wrapper/plausible_webhooks_phoenix"}
      changes = plan(root, dependency: inside)
      assert {:unknown, "no COPY mix.exs"} = of(changes, "Dockerfile").result
    end

    test "no Elixir, no file, the hook's place twice", %{root: root} do
      write(root, "mix.exs", "defmodule (")
      File.rm!(Path.join(root, "Dockerfile"))
      path = "lib/plausible/ingestion/event.ex"

      write(
        root,
        path,
        read(root, path) <> String.replace(read(root, path), "Event do", "Old do")
      )

      changes = plan(root)

      assert {:unknown, "it is no Elixir that can be read"} = of(changes, "mix.exs").result
      assert {:unknown, "there is no such file"} = of(changes, "Dockerfile").result
      assert {:unknown, "build_and_buffer does not" <> _} = of(changes, path).result
    end
  end

  describe "what is there already" do
    test "a second run finds all of it and changes nothing", %{root: root} do
      Installer.write!(root, plan(root))
      before = snapshot(root)
      changes = plan(root, now: ~N[2027-01-01 00:00:00])
      assert Enum.all?(changes, &(&1.result == :done))
      assert snapshot(root) == before
    end

    test "a half is made whole", %{root: root} do
      path = "lib/plausible/goals/goals.ex"
      {:edit, _old, whole} = of(plan(root), path).result

      half =
        String.replace(
          whole,
          "    |> tap(fn _result -> Plausible.Webhooks.goals_changed(goal.site_id) end)\n",
          ""
        )

      write(root, path, half)
      assert {:edit, ^half, ^whole} = of(plan(root), path).result

      path = "lib/workers/traffic_change_notifier.ex"
      {:edit, _old, whole} = of(plan(root), path).result
      half = String.replace(whole, ~r/ +Plausible.Webhooks.traffic_change\(:drop.*?\}\)\n\n/s, "")
      write(root, path, half)
      assert {:edit, ^half, ^whole} = of(plan(root), path).result
    end

    for {path, from, to} <- [
          {"lib/plausible/application.ex", "use Plausible\n",
           "use Plausible\n  alias Plausible.Webhooks\n  def on?, do: Webhooks.running?()\n"},
          {"config/runtime.exs", "if config_env", "Other.Config.from_env(1)\n\nif config_env"},
          {"lib/plausible_web/views/layout_view.ex", "regular_site? =",
           "conn.assigns[:page] == \"webhooks\"\n    regular_site? ="}
        ] do
      test "#{path} with #{inspect(to)}: a mention is not it", %{root: root} do
        replace(root, unquote(path), unquote(from), unquote(to))
        assert {:edit, _old, _new} = of(plan(root), unquote(path)).result
      end
    end

    for child <- [
          "{Webhooks, Webhooks.Host.Plausible.options()}",
          "{Webhooks, webhooks()}",
          "Supervisor.child_spec({Plausible.Webhooks, webhooks()}, id: :webhooks)"
        ] do
      test "the child as #{child}", %{root: root} do
        path = "lib/plausible/application.ex"
        replace(root, path, "use Plausible\n", "use Plausible\n  alias Plausible.Webhooks\n")
        replace(root, path, "        endpoint,", "        #{unquote(child)},\n        endpoint,")
        assert of(plan(root), path).result == :done
      end
    end

    test "the configuration and the entry in other words", %{root: root} do
      Installer.write!(root, plan(root))
      config = "Plausible.Webhooks.Host.Plausible.Config"
      replace(root, "config/runtime.exs", "#{config}.from_env", "Ours.from_env")

      write(
        root,
        "config/runtime.exs",
        "alias #{config}, as: Ours\n" <> read(root, "config/runtime.exs")
      )

      path = "lib/plausible_web/views/layout_view.ex"
      replace(root, path, ~s("webhooks"), ~S("/#{conn.domain}/settings/webhooks"))
      assert Enum.all?(plan(root), &(&1.result == :done))
    end

    test "what another kind of dependency has left: it says what is to be changed", %{root: root} do
      inside = {:path, "vendor/plausible-webhooks/elixir_wrapper/plausible_webhooks_phoenix"}
      Installer.write!(root, plan(root, dependency: inside))
      assert Enum.all?(plan(root), &(&1.result == :done))

      replace(root, "mix.exs", ~r/path: "vendor.*"/, ~s(git: "https://example.com/w.git"))
      changes = plan(root)
      css = of(changes, "assets/css/app.css")
      assert {:unknown, "line 5 names the package in another place" <> _} = css.result
      assert [~s(@source "../../deps/plausible_webhooks_phoenix/) <> _] = css.lines
      image = of(changes, "Dockerfile")
      assert {:unknown, "line 8 copies the package from another place" <> _} = image.result
      assert image.lines == []

      # As it says.
      replace(root, "Dockerfile", ~r/COPY vendor.*\n/, "")
      replace(root, "assets/css/app.css", ~r/@source .*webhooks.*/, hd(css.lines))
      assert Enum.all?(plan(root), &(&1.result == :done))

      # And back.
      replace(root, "mix.exs", ~r/git: ".*"/, ~s(path: "#{elem(inside, 1)}"))
      image = of(plan(root), "Dockerfile")
      assert {:unknown, "it does not copy the folder" <> _} = image.result
      assert image.lines == ["COPY vendor/plausible-webhooks ./vendor/plausible-webhooks"]
    end

    test "the migration under another name and time", %{root: root} do
      write(root, "priv/repo/migrations/20270101000000_hooks.exs", """
      defmodule Plausible.Repo.Migrations.Hooks do
        use Ecto.Migration
        def up, do: Plausible.Webhooks.Migrations.up()
        def down, do: Plausible.Webhooks.Migrations.down()
      end
      """)

      assert of(plan(root), "priv/repo/migrations/20270101000000_hooks.exs").result == :done
      refute Enum.any?(plan(root), &(&1.path =~ "add_plausible_webhooks"))
    end

    test "the dependency: what mix.exs says counts more than what is asked for", %{root: root} do
      replace(root, "mix.exs", "{:phoenix, ", """
      {:plausible_webhooks_phoenix,
       git: "https://example.com/w.git", ref: "v1", subdir: "elixir_wrapper/x"},
      {:phoenix, \
      """)

      changes = plan(root, dependency: {:path, "../elsewhere"})
      assert of(changes, "mix.exs").result == :done
      assert [source] = added(of(changes, "assets/css/app.css"))
      assert source =~ "../../deps/plausible_webhooks_phoenix/"
      assert of(changes, "Dockerfile").note == nil
    end
  end
end
