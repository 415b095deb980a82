defmodule Plausible.Webhooks.InstallCase do
  @moduledoc false
  # A folder with files that hold just what the installer searches for, and helpers for
  # the changes that it plans. `tmp_dir/analytics` is the folder.

  use ExUnit.CaseTemplate

  import ExUnit.Assertions

  alias Plausible.Webhooks.Installer

  @now ~N[2026-11-26 10:20:30]

  @tree %{
    "Dockerfile" => """
    FROM one AS build
    RUN apk add --no-cache make gcc
    COPY mix.exs ./
    RUN mix deps.get
    FROM two
    RUN apk add --no-cache libstdc++ \\
      && true
    """,
    "assets/css/app.css" => """
    @source "../../lib/plausible_web";
    """,
    "config/runtime.exs" => """
    import Config
    config_dir = "/secrets"
    secret_key_base = get_var_from_path_or_env(config_dir, "KEY")
    """,
    "lib/plausible/application.ex" => """
    defmodule Sample.Children do
      def children(endpoint) do
        [
          {Phoenix.PubSub, name: Sample.PubSub},
          endpoint
        ]
        |> Enum.reject(&is_nil/1)
      end
    end
    """,
    "lib/plausible/goals/goals.ex" => """
    defmodule Sample.Goals do
      def create(site, goal) do
        Repo.transaction(fn -> Repo.insert({site, goal}) end)
      end

      def update(goal, fields) do
        Repo.update(goal, fields)
      end

      def delete(id, site_id) do
        deleted = Repo.delete_all({id, site_id})

        case deleted do
          {0, _} -> :error
          _some -> :ok
        end
      end

      def delete_404(site) do
        Repo.delete_all(site)
        :ok
      end
    end
    """,
    "lib/plausible/ingestion/event.ex" => """
    defmodule Sample.Events do
      def build_and_buffer(buffered) do
        {:ok, %{buffered: buffered}}
      end
    end
    """,
    "lib/plausible_web/controllers/site_controller.ex" => """
    defmodule Sample.Controller do
      def settings_integrations(conn, _params) do
        conn
      end
    end
    """,
    "lib/plausible_web/endpoint.ex" => """
    defmodule Sample.Endpoint do
      plug(Plug.Telemetry)

      plug(Plug.Parsers,
        pass: ["*/*"]
      )
    end
    """,
    "lib/plausible_web/router.ex" => """
    defmodule Sample.Router do
      get "/:domain/settings/integrations", SiteController, :settings_integrations
    end
    """,
    "lib/plausible_web/templates/site/settings_goals.html.heex" => """
    {live_render(@conn, Goals)}
    """,
    "lib/plausible_web/views/layout_view.ex" => """
    defmodule Sample.Sidebar do
      def entries(regular_site?) do
        [
          if regular_site? do
            %{key: "Integrations", value: "integrations", icon: :plug}
          end,
          %{key: "Last", value: "last"}
        ]
        |> Enum.reject(&is_nil/1)
      end
    end
    """,
    "lib/workers/traffic_change_notifier.ex" => """
    defmodule Sample.Notifier do
      def check(notification, current_visitors, now) do
        if current_visitors >= notification.threshold do
          stats = %{sources: [], pages: []}

          mail(notification, stats, now)
        end

        if current_visitors < notification.threshold do
          mail(notification, %{}, now)
        end
      end
    end
    """,
    "mix.exs" => """
    defmodule Sample.MixProject do
      defp deps do
        [
          {:phoenix, "~> 1.0"},
          {:zoned, "~> 1.0"}
        ]
      end
    end
    """
  }

  using do
    quote do
      import Plausible.Webhooks.InstallCase
      alias Plausible.Webhooks.Installer

      @moduletag :tmp_dir
    end
  end

  setup %{tmp_dir: dir} do
    root = Path.join(dir, "analytics")
    for {path, text} <- @tree, do: write(root, path, text)
    {:ok, root: root}
  end

  @doc "The files that the installer changes or makes."
  def files do
    unchanged = "lib/plausible_web/templates/site/settings_goals.html.heex"

    new = [
      "lib/plausible_web/templates/site/settings_webhooks.html.heex",
      "priv/repo/migrations/20261126102030_add_plausible_webhooks.exs"
    ]

    Enum.sort(new ++ (Map.keys(@tree) -- [unchanged]))
  end

  def plan(root, options \\ []),
    do: Installer.plan(root, Keyword.put_new(options, :now, @now))

  @doc "The change of one file."
  def change(root, path, options \\ []) do
    root |> plan(options) |> Enum.find(&(&1.path == path)) || flunk("no change of #{path}")
  end

  @doc "The lines that the installer adds to a file, each block as one text. It removes none."
  def added(root, path, options \\ []), do: added(change(root, path, options))

  def added(%{result: {:edit, old, new}}) do
    script = List.myers_difference(String.split(old || "", "\n"), String.split(new, "\n"))
    assert for({:del, lines} <- script, lines != [""], do: lines) == []
    for {:ins, lines} <- script, do: Enum.join(lines, "\n")
  end

  def added(%{result: result}), do: flunk("no edit: #{inspect(result)}")

  def write(root, path, text) do
    path = Path.join(root, path)
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, text)
  end

  def read(root, path), do: File.read!(Path.join(root, path))

  def replace(root, path, from, to) do
    text = read(root, path)
    assert text =~ from
    write(root, path, String.replace(text, from, to))
  end

  @doc "Every file with its text."
  def snapshot(root) do
    for path <- Path.wildcard(Path.join(root, "**"), match_dot: true),
        File.regular?(path),
        into: %{},
        do: {Path.relative_to(path, root), File.read!(path)}
  end
end
