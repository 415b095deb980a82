defmodule Plausible.Webhooks.InstallTest do
  # What the installer adds to each file.
  use Plausible.Webhooks.InstallCase, async: true

  @inside {:path, "vendor/plausible-webhooks/elixir_wrapper/plausible_webhooks_phoenix"}
  @git {:git, "https://example.com/webhooks.git", "v0.1.0"}

  test "every file gets lines and loses none; Elixir stays formatted", %{root: root} do
    changes = plan(root)
    assert Enum.map(changes, & &1.path) == files()
    for change <- changes, do: assert(added(change) != [])
    Installer.write!(root, changes)

    for path <- files(), Path.extname(path) in [".ex", ".exs"] do
      text = read(root, path)
      formatted = Code.format_string!(text, locals_without_parens: [config: :*, get: :*])
      assert IO.iodata_to_binary([formatted, "\n"]) == text, path
    end
  end

  test "a second run changes nothing", %{root: root} do
    Installer.write!(root, plan(root))
    before = snapshot(root)
    changes = plan(root, now: ~N[2027-01-01 00:00:00])
    assert Enum.all?(changes, &(&1.result == :done))
    Installer.write!(root, changes)
    assert snapshot(root) == before
  end

  describe "mix.exs" do
    test "gets the dependency in alphabetical order", %{root: root} do
      assert Installer.diff(change(root, "mix.exs", dependency: {:path, "vendor/w"})) =~ """
                    {:phoenix, "~> 1.0"},
             +      {:plausible_webhooks_phoenix, path: "vendor/w"},
                    {:zoned, "~> 1.0"}
             """

      assert added(root, "mix.exs", dependency: @git) == [
               """
                     {:plausible_webhooks_phoenix,
                      git: "https://example.com/webhooks.git",
                      ref: "v0.1.0",
                      subdir: "elixir_wrapper/plausible_webhooks_phoenix"},\
               """
             ]
    end

    test "decides about the source of the package", %{root: root} do
      replace(root, "mix.exs", "{:zoned, ", """
      {:plausible_webhooks_phoenix, git: "https://example.com/w.git", ref: "v1", subdir: "x"},
      {:zoned, \
      """)

      options = [dependency: {:path, "../elsewhere"}]
      assert change(root, "mix.exs", options).result == :done
      assert [source] = added(root, "assets/css/app.css", options)
      assert source =~ "../../deps/plausible_webhooks_phoenix/"
    end
  end

  test "the child goes between PubSub and the endpoint", %{root: root} do
    assert Installer.diff(change(root, "lib/plausible/application.ex")) =~ """
                  {Phoenix.PubSub, name: Sample.PubSub},
           +      # before the endpoint: it stops after the last request, and drains
           +      if Application.get_env(:plausible, Plausible.Webhooks) do
           +        {Plausible.Webhooks, Plausible.Webhooks.Host.Plausible.options()}
           +      end,
                  endpoint
           """
  end

  test "buffered events are passed on", %{root: root} do
    assert added(root, "lib/plausible/ingestion/event.ex") ==
             ["    Plausible.Webhooks.events_buffered(buffered)"]
  end

  test "a spike and a drop are passed on before the mail", %{root: root} do
    assert added(root, "lib/workers/traffic_change_notifier.ex") == [
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

  test "functions that change goals call goals_changed after the commit", %{root: root} do
    assert added(root, "lib/plausible/goals/goals.ex") == [
             "    |> tap(fn _result -> Plausible.Webhooks.goals_changed(site.id) end)",
             "    |> tap(fn _result -> Plausible.Webhooks.goals_changed(goal.site_id) end)",
             "    Plausible.Webhooks.goals_changed(site_id)\n",
             "    Plausible.Webhooks.goals_changed(site.id)"
           ]
  end

  test "the page has a route, an action, a template and an entry in the sidebar", %{root: root} do
    assert added(root, "lib/plausible_web/router.ex") ==
             [~s|  get "/:domain/settings/webhooks/*view", SiteController, :settings_webhooks|]

    assert added(root, "lib/plausible_web/endpoint.ex") ==
             ["  plug(PlausibleWeb.WebhookTestAddress)\n"]

    assert [action] = added(root, "lib/plausible_web/controllers/site_controller.ex")
    assert action =~ "  def settings_webhooks(conn, _params) do\n"

    assert added(root, "lib/plausible_web/views/layout_view.ex") == [
             """
                   if regular_site? and Application.get_env(:plausible, Plausible.Webhooks) do
                     %{key: "Webhooks", value: "webhooks", icon: :bolt}
                   end,\
             """
           ]

    assert [template] =
             added(root, "lib/plausible_web/templates/site/settings_webhooks.html.heex")

    assert template =~ "{PlausibleWeb.Live.WebhookSettings.live(@conn, @webhooks_session)}"

    without = root |> plan(page: false) |> Enum.map(& &1.path)
    assert without == Enum.reject(files(), &(&1 =~ ~r/plausible_web\/|assets/))
  end

  test "the configuration goes at the end, with or without a newline there", %{root: root} do
    old = read(root, "config/runtime.exs")
    assert [block] = added(root, "config/runtime.exs")
    assert block =~ "Plausible.Webhooks.Host.Plausible.Config.from_env("
    {:edit, ^old, new} = change(root, "config/runtime.exs").result
    assert String.starts_with?(new, old <> "\n# webhooks")

    write(root, "config/runtime.exs", String.trim_trailing(old))
    {:edit, _old, same} = change(root, "config/runtime.exs").result
    assert String.trim_trailing(same) == String.trim_trailing(new)
  end

  describe "the Dockerfile" do
    test "gets the packages of the build and of the image", %{root: root} do
      assert [build, run] = added(root, "Dockerfile")
      assert build =~ "c-ares-dev cmake curl-dev g++ libidn2-dev openssl-dev simdjson-dev"
      assert run =~ "c-ares libcurl libidn2 simdjson"
      {:edit, _old, new} = change(root, "Dockerfile").result
      assert new =~ "make gcc\n# for plausible_webhooks\n"
      assert new =~ "&& true\n# for plausible_webhooks\n"
    end

    test "copies a package that is inside the folder before mix deps.get", %{root: root} do
      assert Installer.diff(change(root, "Dockerfile", dependency: @inside)) =~
               " COPY mix.exs ./\n+COPY vendor/plausible-webhooks ./vendor/plausible-webhooks\n"

      # Docker cannot reach the default, a folder beside this one.
      assert change(root, "Dockerfile").note =~ "--git"
      assert change(root, "Dockerfile", dependency: @git).note == nil
      refute Installer.diff(change(root, "Dockerfile", dependency: @git)) =~ "+COPY"
    end
  end

  test "the style sheet names the folder of the package", %{root: root} do
    package = "elixir_wrapper/plausible_webhooks_phoenix"

    for {dependency, folder} <- [
          {{:path, "../w/#{package}"}, "../../../w/#{package}"},
          {{:path, "vendor/w"}, "../../vendor/w"},
          {{:path, Path.expand(root <> "/../elsewhere/w")}, "../../../elsewhere/w"},
          {@git, "../../deps/plausible_webhooks_phoenix/#{package}"}
        ] do
      assert added(root, "assets/css/app.css", dependency: dependency) ==
               [~s(@source "#{folder}/lib/plausible_web";)]
    end
  end

  test "the migration makes the tables", %{root: root} do
    path = List.last(files())
    {:edit, nil, migration} = change(root, path, version: 1).result

    assert migration =~
             "def up, do: Plausible.Webhooks.Migrations.up(version: 1, sites: \"sites\")"

    assert migration =~ "def down, do: Plausible.Webhooks.Migrations.down(version: 1)"
  end

  test "the functions that Plausible calls exist" do
    adapter = Plausible.Webhooks.Host.Plausible
    assert Code.ensure_loaded?(adapter) and Code.ensure_loaded?(Plausible.Webhooks)
    assert function_exported?(adapter, :options, 0)
    assert function_exported?(adapter, :page, 1)

    for name <- [:events_buffered, :goals_changed],
        do: assert(function_exported?(Plausible.Webhooks, name, 1))

    assert function_exported?(Plausible.Webhooks, :traffic_change, 3)
    assert Code.ensure_loaded?(PlausibleWeb.Live.WebhookSettings)
    assert function_exported?(PlausibleWeb.Live.WebhookSettings, :live, 2)
  end

  test "docs/plausible.md shows each line", %{root: root} do
    # White space in front of a line depends on the file.
    lines = fn text -> text |> String.split("\n") |> Enum.map(&String.trim/1) end
    docs = File.read!(Path.expand("../../../docs/plausible.md", __DIR__))
    shown = for "+" <> line <- lines.(docs), do: String.trim(line)

    for change <- plan(root), block <- added(change), line <- lines.(block), line != "" do
      assert line in shown, "#{change.path}: #{line}"
    end
  end

  describe "a diff" do
    test "states its place and a missing newline at the end", %{root: _root} do
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

    test "can be applied by git", %{root: root} do
      copy = root <> "-copy"
      File.cp_r!(root, copy)
      changes = plan(root)
      diff = Path.join(Path.dirname(root), "all.diff")
      File.write!(diff, Enum.map_join(changes, &Installer.diff/1))

      {_out, 0} = System.cmd("git", ["init", "-q", copy])
      assert {"", 0} = System.cmd("git", ["apply", diff], cd: copy, stderr_to_stdout: true)
      File.rm_rf!(Path.join(copy, ".git"))
      Installer.write!(root, changes)
      assert snapshot(copy) == snapshot(root)
    end
  end
end
