defmodule Plausible.Webhooks.InstallCase do
  @moduledoc false
  # A folder with the miniature of Plausible under test/fixtures, and what is asked of
  # the installer's changes in it.

  use ExUnit.CaseTemplate

  import ExUnit.Assertions

  alias Plausible.Webhooks.Installer

  @fixtures Path.expand("../fixtures", __DIR__)
  @now ~N[2026-11-26 10:20:30]

  using do
    quote do
      import Plausible.Webhooks.InstallCase
      alias Plausible.Webhooks.Installer

      @moduletag :tmp_dir
    end
  end

  setup %{tmp_dir: dir} do
    root = Path.join(dir, "analytics")
    File.cp_r!(fixture("plausible"), root)
    {:ok, root: root}
  end

  @doc "The files that are changed, or made."
  def files do
    ~w(Dockerfile assets/css/app.css config/runtime.exs lib/plausible/application.ex
       lib/plausible/goals/goals.ex lib/plausible/ingestion/event.ex
       lib/plausible_web/controllers/site_controller.ex lib/plausible_web/router.ex
       lib/plausible_web/templates/site/settings_webhooks.html.heex
       lib/plausible_web/views/layout_view.ex lib/workers/traffic_change_notifier.ex mix.exs
       priv/repo/migrations/20261126102030_add_plausible_webhooks.exs)
  end

  def fixture(path), do: Path.join(@fixtures, path)

  def plan(root, options \\ []),
    do: Installer.plan(root, Keyword.put_new(options, :now, @now))

  def of(changes, path), do: Enum.find(changes, &(&1.path == path)) || flunk("no #{path}")

  def edits(changes), do: Enum.filter(changes, &match?(%{result: {:edit, _, _}}, &1))

  @doc "The lines that an edit adds, each block as one text; it takes none away."
  def added(%{result: {:edit, old, new}}) do
    script = List.myers_difference(String.split(old || "", "\n"), String.split(new, "\n"))
    assert for({:del, lines} <- script, lines != [""], do: lines) == []
    for {:ins, lines} <- script, do: Enum.join(lines, "\n")
  end

  def write(root, path, text), do: File.write!(Path.join(root, path), text)
  def read(root, path), do: File.read!(Path.join(root, path))

  @doc "Puts a file as it was in another year in the place of today's."
  def older(root, path),
    do: File.cp!(fixture(Path.join("plausible_older", path)), Path.join(root, path))

  def replace(root, path, from, to) do
    text = read(root, path)
    assert text =~ from
    write(root, path, String.replace(text, from, to))
  end

  @doc "Every file with what is in it."
  def snapshot(root) do
    for path <- Path.wildcard(Path.join(root, "**"), match_dot: true),
        File.regular?(path),
        into: %{},
        do: {Path.relative_to(path, root), File.read!(path)}
  end
end
