defmodule Plausible.Webhooks.InstallTest do
  use Plausible.Webhooks.InstallCase, async: true

  describe "each file" do
    test "is one of these, and each gets only lines more", %{root: root} do
      changes = plan(root)
      assert Enum.map(changes, & &1.path) == files()
      assert length(edits(changes)) == length(files())
      for change <- changes, do: assert(added(change) != [])
    end

    test "mix.exs: the dependency in its place in the alphabet", %{root: root} do
      assert added(of(plan(root), "mix.exs")) == [
               """
                     {:plausible_webhooks_phoenix,
                      path: "../plausible-webhooks/elixir_wrapper/plausible_webhooks_phoenix"},\
               """
             ]

      {:edit, _old, new} = of(plan(root), "mix.exs").result
      assert new =~ ~r/:phoenix,.*:plausible_webhooks_phoenix,.*:ua_inspector,/s

      assert added(of(plan(root, dependency: {:path, "vendor/webhooks"}), "mix.exs")) == [
               ~s(      {:plausible_webhooks_phoenix, path: "vendor/webhooks"},)
             ]

      git = {:git, "https://example.com/webhooks.git", "v0.1.0"}

      assert added(of(plan(root, dependency: git), "mix.exs")) == [
               """
                     {:plausible_webhooks_phoenix,
                      git: "https://example.com/webhooks.git",
                      ref: "v0.1.0",
                      subdir: "elixir_wrapper/plausible_webhooks_phoenix"},\
               """
             ]
    end

    test "application.ex: the child between PubSub and the endpoint", %{root: root} do
      change = of(plan(root), "lib/plausible/application.ex")

      assert Installer.diff(change) =~ """
                      {Phoenix.PubSub, name: Plausible.PubSub},
             +        # before the endpoint: it stops after the last request, and drains
             +        if Application.get_env(:plausible, Plausible.Webhooks) do
             +          {Plausible.Webhooks, Plausible.Webhooks.Host.Plausible.options()}
             +        end,
                      endpoint,
             """
    end

    test "event.ex: the hook before what it returns", %{root: root} do
      change = of(plan(root), "lib/plausible/ingestion/event.ex")

      assert Installer.diff(change) =~ """
                  {dropped, buffered} = Enum.split_with(processed_events, & &1.dropped?)
             +    Plausible.Webhooks.events_buffered(buffered)
                  {:ok, %{dropped: dropped, buffered: buffered}}
             """
    end

    test "traffic_change_notifier.ex: both kinds, before the mail", %{root: root} do
      assert added(of(plan(root), "lib/workers/traffic_change_notifier.ex")) == [
               """
                     Plausible.Webhooks.traffic_change(:spike, notification.site, %{
                       current_visitors: current_visitors,
                       threshold: notification.threshold,
                       sources: stats.sources,
                       pages: stats.pages,
                       at: now
                     })
               """,
               """
                     Plausible.Webhooks.traffic_change(:drop, notification.site, %{
                       current_visitors: current_visitors,
                       threshold: notification.threshold,
                       at: now
                     })
               """
             ]
    end

    test "goals.ex: every function that changes goals, once", %{root: root} do
      assert added(of(plan(root), "lib/plausible/goals/goals.ex")) == [
               "    |> tap(fn _result -> Plausible.Webhooks.goals_changed(site.id) end)",
               "    |> tap(fn _result -> Plausible.Webhooks.goals_changed(goal.site_id) end)",
               "    |> tap(fn _result -> Plausible.Webhooks.goals_changed(site.id) end)",
               "    Plausible.Webhooks.goals_changed(site_id)\n",
               "    Plausible.Webhooks.goals_changed(site.id)"
             ]
    end

    test "router, controller, template, sidebar: the page beside the integrations",
         %{root: root} do
      changes = plan(root)

      assert added(of(changes, "lib/plausible_web/router.ex")) == [
               ~s|  get("/:domain/settings/webhooks", SiteController, :settings_webhooks)|
             ]

      replace(root, "lib/plausible_web/router.ex", ~r/get\((.*)\)$/m, "get \\1")

      assert added(of(plan(root), "lib/plausible_web/router.ex")) == [
               ~s|  get "/:domain/settings/webhooks", SiteController, :settings_webhooks|
             ]

      assert added(of(changes, "lib/plausible_web/controllers/site_controller.ex")) == [
               """
                 def settings_webhooks(conn, _params) do
                   render(conn, "settings_webhooks.html",
                     dogfood_page_path: "/:dashboard/settings/webhooks",
                     connect_live_socket: true,
                     layout: {PlausibleWeb.LayoutView, "site_settings.html"}
                   )
                 end
               """
             ]

      {:edit, _old, sidebar} = of(changes, "lib/plausible_web/views/layout_view.ex").result

      assert sidebar =~ """
                     %{key: "Integrations", value: "integrations", icon: :puzzle_piece}
                   end,
                   if regular_site? and Application.get_env(:plausible, Plausible.Webhooks) do
                     %{key: "Webhooks", value: "webhooks", icon: :bolt}
                   end,
                   if regular_site? do
                     %{key: "Shields",\
             """

      {:edit, nil, template} =
        of(changes, "lib/plausible_web/templates/site/settings_webhooks.html.heex").result

      assert template == """
             {live_render(@conn, PlausibleWeb.Live.WebhookSettings,
               session: Plausible.Webhooks.Host.Plausible.page_session(@conn)
             )}
             """
    end

    test "runtime.exs: at its end, also where that is no newline", %{root: root} do
      block = """

      # webhooks: the variables are explained in the docs/plausible.md of that package
      config :plausible,
             Plausible.Webhooks,
             Plausible.Webhooks.Host.Plausible.Config.from_env(
               &get_var_from_path_or_env(config_dir, &1),
               secret_key_base: secret_key_base,
               enabled: config_env() not in [:test, :ce_test]
             )
      """

      old = read(root, "config/runtime.exs")
      assert {:edit, ^old, new} = of(plan(root), "config/runtime.exs").result
      assert new == old <> block

      write(root, "config/runtime.exs", String.trim_trailing(old))
      assert {:edit, _old, new} = of(plan(root), "config/runtime.exs").result
      assert String.trim_trailing(new) == String.trim_trailing(old <> block)
    end

    test "Dockerfile: what the build needs, what the image needs", %{root: root} do
      assert added(of(plan(root), "Dockerfile")) == [
               """
               # for plausible_webhooks
               RUN apk add --no-cache cmake curl-dev g++ libidn2-dev openssl-dev simdjson-dev\
               """,
               """
               # for plausible_webhooks
               RUN apk add --no-cache libcurl libidn2 simdjson\
               """
             ]

      assert of(plan(root), "Dockerfile").note =~ "--git"
      {:edit, _old, new} = of(plan(root), "Dockerfile").result
      assert new =~ "certbot; fi\n# for plausible_webhooks\n"
    end

    test "Dockerfile: a package inside of the folder is copied before its dependencies are got",
         %{root: root} do
      inside = {:path, "vendor/plausible-webhooks/elixir_wrapper/plausible_webhooks_phoenix"}

      change = of(plan(root, dependency: inside), "Dockerfile")
      assert change.note == nil

      assert Installer.diff(change) =~ """
              COPY mix.exs ./
             +COPY vendor/plausible-webhooks ./vendor/plausible-webhooks
              COPY mix.lock ./
             """

      git = {:git, "https://example.com/webhooks.git", nil}
      change = of(plan(root, dependency: git), "Dockerfile")
      assert change.note == nil
      refute Installer.diff(change) =~ "+COPY"
    end

    test "app.css: where the classes are, for each kind of dependency", %{root: root} do
      for {dependency, folder} <- [
            {{:path, "../w/elixir_wrapper/plausible_webhooks_phoenix"},
             "../../../w/elixir_wrapper/plausible_webhooks_phoenix"},
            {{:path, "vendor/w"}, "../../vendor/w"},
            {{:git, "https://example.com/w.git", nil},
             "../../deps/plausible_webhooks_phoenix/elixir_wrapper/plausible_webhooks_phoenix"},
            {{:path, Path.expand(root <> "/../elsewhere/w")}, "../../../elsewhere/w"}
          ] do
        assert added(of(plan(root, dependency: dependency), "assets/css/app.css")) ==
                 [~s(@source "#{folder}/lib/plausible_web";)]
      end
    end

    test "the migration", %{root: root} do
      assert {:edit, nil, migration} = of(plan(root), List.last(files())).result

      assert migration == """
             defmodule Plausible.Repo.Migrations.AddPlausibleWebhooks do
               use Ecto.Migration

               def up, do: Plausible.Webhooks.Migrations.up(version: 1, sites: "sites")
               def down, do: Plausible.Webhooks.Migrations.down(version: 1)
             end
             """
    end

    test "--no-page leaves the page out", %{root: root} do
      paths = root |> plan(page: false) |> Enum.map(& &1.path)
      assert paths == Enum.reject(files(), &(&1 =~ ~r/plausible_web\/|assets/))
    end
  end

  describe "what it makes" do
    test "is formatted, and does what it says: calls after the commit, results as before",
         %{root: root} do
      Installer.write!(root, plan(root))

      for path <- files(), Path.extname(path) in [".ex", ".exs"] do
        text = read(root, path)
        formatted = Code.format_string!(text, locals_without_parens: [get: :*, config: :*])
        assert IO.iodata_to_binary([formatted, "\n"]) == text, path
      end

      {results, calls} = patched(root)
      goal = %{event_name: "a", site_id: 7}
      kept = %{domain: "a", dropped?: false}

      assert [create, update, :ok, [^goal], :ok, events, :ok] = results
      assert create == {:ok, %{n: 1, site_id: 7}}
      assert update == {:ok, %{n: 2, site_id: 7}}
      assert {:ok, %{buffered: [^kept], dropped: [%{domain: "b"}]}} = events

      changed = {:goals_changed, [7]}
      insert = [:insert, {:returned, :insert}]
      delete = [:delete_all, {:returned, :delete_all}]
      in_transaction = fn calls -> [:transaction | calls] ++ [{:returned, :transaction}] end

      {goals, others} = Enum.split_while(calls, &(not match?({:events_buffered, _}, &1)))

      assert goals ==
               in_transaction.(insert) ++
                 [changed] ++
                 in_transaction.(insert) ++
                 [changed] ++
                 in_transaction.(delete) ++
                 [changed] ++
                 insert ++ [changed] ++ delete ++ [changed]

      at = ~N[2026-11-26 00:00:00]
      sources = [%{dimensions: ["Hacker News"], metrics: [301]}]

      assert [
               {:events_buffered, [[^kept]]},
               {:traffic_change, [:spike, %{id: 7}, spike]},
               {:traffic_change, [:drop, %{id: 7}, drop]}
             ] = others

      assert spike == %{current_visitors: 9, threshold: 5, sources: sources, pages: [], at: at}
      assert drop == %{current_visitors: 0, threshold: 1, at: at}
    end

    defp patched(root) do
      paths = Enum.flat_map(:code.get_path(), &["-pa", to_string(&1)])
      script = fixture("patched.exs")
      elixir = System.find_executable("elixir")
      {out, status} = System.cmd(elixir, paths ++ [script, root])
      assert status == 0
      out |> String.trim() |> Base.decode64!() |> :erlang.binary_to_term()
    end
  end

  test "what it makes Plausible call is there" do
    alias Plausible.Webhooks.Host.Plausible, as: Adapter
    assert Code.ensure_loaded?(Adapter)
    assert function_exported?(Adapter, :options, 0)
    assert function_exported?(Adapter, :page_session, 1)
  end

  # Skipped where LiveView is missing, and seen as skipped.
  @tag skip: not Code.ensure_loaded?(PlausibleWeb.Live.WebhookSettings)
  test "and the page that it makes Plausible show" do
    assert function_exported?(PlausibleWeb.Live.WebhookSettings, :mount, 3)
  end

  test "docs/plausible.md shows each line of it", %{root: root} do
    # The host in miniature is written as Plausible is, but for its older templates.
    template = "lib/plausible_web/templates/site/settings_webhooks.html.heex"
    changes = "host" |> Path.expand(__DIR__) |> plan() |> Enum.reject(&(&1.path == template))
    changes = [of(plan(root), template) | changes]
    assert length(edits(changes)) == length(files())

    # Without the white space that says how deep a line is in its file.
    lines = fn text -> text |> String.split("\n") |> Enum.map(&String.trim/1) end
    docs = File.read!(Path.expand("../../../docs/plausible.md", __DIR__))
    shown = for "+" <> line <- lines.(docs), do: String.trim(line)

    for change <- changes, block <- added(change), line <- lines.(block), line != "" do
      assert line in shown, "#{change.path}: #{line}"
    end
  end

  test "a diff says where it goes, and when a file has no newline at its end" do
    new = %{path: "new.ex", result: {:edit, nil, "a\nb\n"}}
    assert Installer.diff(new) == "--- /dev/null\n+++ b/new.ex\n@@ -0,0 +1,2 @@\n+a\n+b\n"

    old = Enum.map_join(1..20, "\n", &"#{&1}")
    far = String.replace(old, "\n4\n", "\n4\nfour\n") <> "\n21"

    assert Installer.diff(%{path: "far", result: {:edit, old, far}}) == """
           --- a/far
           +++ b/far
           @@ -2,6 +2,7 @@
            2
            3
            4
           +four
            5
            6
            7
           @@ -17,4 +18,5 @@
            17
            18
            19
           -20
           \\ No newline at end of file
           +20
           +21
           \\ No newline at end of file
           """

    assert Installer.diff(%{path: "same", result: :done}) == ""
  end

  test "the diff is one that patch takes", %{root: root} do
    changes = plan(root)
    copy = root <> "-copy"
    File.cp_r!(fixture("plausible"), copy)
    diff = Path.join(root, "all.diff")
    File.write!(diff, Enum.map_join(changes, &Installer.diff/1))

    {_out, 0} = System.cmd("git", ["init", "-q", copy])
    assert {"", 0} = System.cmd("git", ["apply", diff], cd: copy, stderr_to_stdout: true)
    File.rm_rf!(Path.join(copy, ".git"))
    File.rm!(diff)
    Installer.write!(root, changes)
    assert snapshot(copy) == snapshot(root)
  end
end
