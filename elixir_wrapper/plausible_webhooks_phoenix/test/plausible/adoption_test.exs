defmodule Plausible.Webhooks.Plausible.AdoptionTest do
  # What the installer makes of the host in miniature. That the result compiles without
  # a warning and runs is what every other test in this folder stands on.
  use Plausible.Webhooks.Test.PlausibleCase, async: false

  import ExUnit.CaptureIO

  alias Mix.Tasks.PlausibleWebhooks.Install
  alias Plausible.Webhooks.Test.PlausibleHost

  @compile {:no_warn_undefined,
            [
              Plausible.Auth.UserSession,
              Plausible.Event.WriteBuffer,
              Plausible.Repo,
              PlausibleWeb.Endpoint,
              PlausibleWeb.LayoutView
            ]}

  @changed ~w(
    Dockerfile
    assets/css/app.css
    config/runtime.exs
    lib/plausible/application.ex
    lib/plausible/goals/goals.ex
    lib/plausible/ingestion/event.ex
    lib/plausible_web/controllers/site_controller.ex
    lib/plausible_web/router.ex
    lib/plausible_web/templates/site/settings_webhooks.html.heex
    lib/plausible_web/views/layout_view.ex
    lib/workers/traffic_change_notifier.ex
    mix.exs
  )

  setup_all do: plausible!()

  test "lines are added to these files, and none is changed or taken away" do
    before = PlausibleHost.copy!()
    on_exit(fn -> File.rm_rf!(before) end)

    {changed, added} =
      PlausibleHost.tree()
      |> files()
      |> Enum.reject(&same?(&1, before, PlausibleHost.tree()))
      |> Enum.split_with(&(&1 in @changed))

    assert Enum.sort(changed) == @changed
    assert [migration] = added
    assert migration =~ ~r"^priv/repo/migrations/\d{14}_add_plausible_webhooks.exs$"

    for path <- changed, old = read(before, path), new = read(PlausibleHost.tree(), path) do
      deleted = for {:del, lines} <- List.myers_difference(old, new), line <- lines, do: line
      assert deleted == [], "#{path} has lost lines"
    end

    # And none is lost.
    assert files(before) -- files(PlausibleHost.tree()) == []
  end

  test "a second run changes nothing" do
    copy = PlausibleHost.copy!()
    on_exit(fn -> File.rm_rf!(copy) end)
    install = fn -> capture_io(fn -> assert :ok = Install.run(["--yes", "--root", copy]) end) end

    assert install.() =~ "Changed "
    once = contents(copy)
    assert install.() =~ "There is nothing to add."
    assert contents(copy) == once
  end

  test "what it adds is formatted as the rest is" do
    {output, status} =
      System.cmd("mix", ["format", "--check-formatted"],
        cd: PlausibleHost.tree(),
        stderr_to_stdout: true,
        env: [{"MIX_BUILD_PATH", nil}, {"MIX_DEPS_PATH", nil}]
      )

    assert {output, status} == {"", 0}
  end

  test "the tables go as they came, and the host is as it was", context do
    tables = fn ->
      sql = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
      for [table] <- Plausible.Repo.query!(sql, [], log: false).rows, do: table
    end

    with_webhooks = tables.()
    assert "webhooks" in with_webhooks
    folder = "#{PlausibleHost.tree()}/priv/repo/migrations"
    {version, _rest} = folder |> File.ls!() |> Enum.max() |> Integer.parse()
    assert :ok = Supervisor.terminate_child(Plausible.Supervisor, Plausible.Webhooks)

    # A migration is compiled each time.
    Code.put_compiler_option(:ignore_module_conflict, true)
    on_exit(fn -> Code.put_compiler_option(:ignore_module_conflict, false) end)
    migrate = &Ecto.Migrator.run(Plausible.Repo, folder, &1, to: version, log: false)
    assert migrate.(:down) == [version]
    assert Enum.filter(tables.(), &(&1 =~ "webhook")) == []

    # Without the instance the hooks do nothing.
    assert {202, _headers} = track(context.site, "Signup")

    assert migrate.(:up) == [version]
    assert tables.() == with_webhooks
    assert {:ok, _pid} = Supervisor.restart_child(Plausible.Supervisor, Plausible.Webhooks)
  end

  test "the sidebar has the entry where webhooks are configured, and else is as it was",
       context do
    sidebar = fn ->
      conn = %{assigns: %{site: context.site}}
      for %{key: key} <- PlausibleWeb.LayoutView.site_settings_sidebar(conn), do: key
    end

    with_webhooks = sidebar.()
    configured = Application.fetch_env!(:plausible, Plausible.Webhooks)
    on_exit(fn -> Application.put_env(:plausible, Plausible.Webhooks, configured) end)
    Application.put_env(:plausible, Plausible.Webhooks, nil)
    assert with_webhooks -- sidebar.() == ["Webhooks"]
  end

  test "in Plausible's own tests nothing of it runs" do
    secret = {"SECRET_KEY_BASE", String.duplicate("s", 64)}

    for {env, configured?} <- [prod: true, ce: true, dev: true, test: false, ce_test: false] do
      config = PlausibleHost.configuration([secret], env)
      assert config[:plausible][Plausible.Webhooks] != nil == configured?
      off = PlausibleHost.configuration([secret, {"WEBHOOKS_ENABLED", "false"}], env)
      assert off[:plausible][Plausible.Webhooks] == nil
    end
  end

  defp files(root) do
    for path <- Path.wildcard("#{root}/**", match_dot: true),
        File.regular?(path),
        do: Path.relative_to(path, root)
  end

  defp same?(path, one, other),
    do: File.read(Path.join(one, path)) == File.read(Path.join(other, path))

  defp read(root, path) do
    case File.read(Path.join(root, path)) do
      {:ok, text} -> String.split(text, "\n")
      {:error, :enoent} -> nil
    end
  end

  defp contents(root), do: Map.new(files(root), &{&1, File.read!(Path.join(root, &1))})
end
