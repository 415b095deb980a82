defmodule Plausible.Webhooks.Installer do
  @moduledoc """
  The change that brings webhooks into Plausible's source; what
  `mix plausible_webhooks.install` shows and makes.

      changes = Plausible.Webhooks.Installer.plan("/src/analytics")
      for change <- changes, do: IO.write(Plausible.Webhooks.Installer.diff(change))

  The installer only adds lines. It finds the places in the syntax tree, so it fits older
  and newer versions of Plausible, and it keeps every other line byte for byte. It leaves
  a file alone when it does not recognize a place in it. It searches each result again
  before it accepts it, so a second run finds everything and changes nothing.

  After an upgrade of this package, run the installer again. It adds the migration to the
  newer version of the tables, and whatever else that version needs.
  """

  alias Plausible.Webhooks.Installer.{Build, Dependency, Diff, Goals, Hooks, Page, Source, Step}
  alias Plausible.Webhooks.Migrations

  @default {:path, "../plausible-webhooks/elixir_wrapper/plausible_webhooks_phoenix"}

  @typedoc """
  `result`: `:done` when the file needs no change; `{:edit, old, new}` with both texts,
  where `old` is `nil` for a new file; `{:unknown, why}` when a place was not recognized.
  Then `where` and `lines` say what to add by hand.
  """
  @type change :: %{
          path: Path.t(),
          result: :done | {:edit, String.t() | nil, String.t()} | {:unknown, String.t()},
          where: String.t(),
          lines: [String.t()],
          note: String.t() | nil
        }

  @doc """
  Returns what to change in the folder `root`. Reads files, and writes none.

  Options:

    * `:dependency` - `{:path, path}`, relative to `root`, or `{:git, url, ref}` (`nil`
      for no ref); default `#{inspect(@default)}`. An entry in `mix.exs` takes precedence.
    * `:page` - whether to add the settings page, default `true`.
    * `:now` - a `NaiveDateTime` for the name of a migration, default now.
    * `:version` - the version of the tables, default the newest.
  """
  @spec plan(Path.t(), keyword()) :: [change()]
  def plan(root, options \\ []) do
    options =
      Keyword.validate!(options,
        dependency: @default,
        page: true,
        now: NaiveDateTime.utc_now(),
        version: Migrations.current_version()
      )

    mix = read(root, "mix.exs") || ""

    context = %{
      root: root,
      now: options[:now],
      version: options[:version],
      # New files end their lines as the others do.
      eol: if(mix =~ "\r\n", do: "\r\n", else: "\n"),
      dependency: dependency(mix) || options[:dependency]
    }

    page = if options[:page], do: Page.steps(context), else: []

    (Hooks.steps() ++ [Goals.step()] ++ Build.steps(context) ++ page)
    |> Enum.sort_by(& &1.path)
    |> Enum.map(&Step.change(&1, read(root, &1.path), context.eol))
  end

  defp dependency(mix) do
    case Source.elixir(mix) do
      {:ok, source} -> Dependency.found(source)
      _not_readable -> nil
    end
  end

  defp read(root, path) do
    case File.read(Path.join(root, path)) do
      {:ok, text} -> text
      {:error, _reason} -> nil
    end
  end

  @doc "Returns the change of one file as a unified diff, or `\"\"` when there is none."
  @spec diff(change()) :: String.t()
  def diff(%{path: path, result: {:edit, old, new}}), do: Diff.unified(path, old, new)
  def diff(_no_edit), do: ""

  @doc """
  Writes the edits among the changes into the folder `root`. When one of the files cannot
  be written, it raises a `File.Error` before it writes any.
  """
  @spec write!(Path.t(), [change()]) :: :ok
  def write!(root, changes) do
    edits =
      for %{path: path, result: {:edit, _old, new}} <- changes, do: {Path.join(root, path), new}

    for {path, _new} <- edits, do: writable!(path)
    for {path, new} <- edits, do: File.write!(path, new)
    :ok
  end

  # Makes the folder of a new file and tries the file; leaves at most empty folders.
  defp writable!(path) do
    new? = not File.exists?(path)

    with :ok <- File.mkdir_p(Path.dirname(path)),
         {:ok, :ok} <- File.open(path, [:read, :write], fn _file -> :ok end) do
      if new?, do: File.rm!(path), else: :ok
    else
      {:error, reason} -> raise File.Error, reason: reason, action: "write to file", path: path
    end
  end
end
