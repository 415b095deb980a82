defmodule Mix.Tasks.PlausibleWebhooks.Install do
  @shortdoc "Brings webhooks into Plausible's source"
  @moduledoc """
  Brings webhooks into Plausible's source: the child, the hooks, the configuration,
  the migration, the settings page, what the image needs.

      mix plausible_webhooks.install

  Shows what it would add to each file as a diff and asks before it writes. It adds
  lines and changes none. Run again it changes nothing. A file that does not look as
  it expects is left alone; then it says which lines go where, does the others, and
  ends with status 1.

  It reads and writes files, and neither starts Plausible nor compiles it. To be found
  it has to be a dependency already, so the first step is one line in `mix.exs`:

      {:plausible_webhooks_phoenix,
       git: "https://...", ref: "...", subdir: "elixir_wrapper/plausible_webhooks_phoenix"}

  then `mix deps.get`. Or it is run where this package is, which needs no such line:

      mix plausible_webhooks.install --root ../../../analytics

  ## Options

    * `--dry-run` - shows and writes nothing
    * `--yes` - does not ask
    * `--no-page` - without the settings page
    * `--root DIR` - Plausible's folder; default: this one
    * `--path DIR` - the dependency by a path, as seen from Plausible's folder
    * `--git URL`, `--ref REF` - the dependency from a repository

  What `mix.exs` says already counts more than the last three. The change in full, and
  how to undo it: `docs/plausible.md`.
  """

  use Mix.Task

  alias Plausible.Webhooks.Installer

  @switches [
    dry_run: :boolean,
    yes: :boolean,
    page: :boolean,
    root: :string,
    path: :string,
    git: :string,
    ref: :string
  ]

  @impl true
  def run(args) do
    options = options!(args)
    root = options[:root] || "."

    unless File.regular?(Path.join(root, "lib/plausible/application.ex")),
      do: Mix.raise("#{Path.expand(root)} is not Plausible's folder; --root DIR says where it is")

    changes = Installer.plan(root, plan_options(options))
    edits = Enum.filter(changes, &match?(%{result: {:edit, _old, _new}}, &1))
    unknown = Enum.filter(changes, &match?(%{result: {:unknown, _why}}, &1))

    Enum.each(edits, &Mix.shell().info(Installer.diff(&1)))
    Enum.each(unknown, &by_hand/1)
    refused? = not write(root, changes, edits, options)
    if unknown != [], do: Mix.shell().error("Left to you: #{paths(unknown)}")
    if unknown != [] or refused?, do: exit({:shutdown, 1}), else: :ok
  end

  defp options!(args) do
    {options, rest, invalid} = OptionParser.parse(args, strict: @switches)

    case {rest, invalid} do
      {[], []} -> :ok
      {[word | _], _invalid} -> Mix.raise("not an option: #{word}")
      {[], [{switch, _value} | _]} -> Mix.raise("not an option, or of another type: #{switch}")
    end

    if options[:path] && options[:git], do: Mix.raise("either --path or --git")
    if options[:ref] && !options[:git], do: Mix.raise("--ref goes with --git")
    options
  end

  defp plan_options(options) do
    page = [page: Keyword.get(options, :page, true)]

    case {options[:path], options[:git]} do
      {nil, nil} -> page
      {nil, url} -> [{:dependency, {:git, url, options[:ref]}} | page]
      {path, nil} -> [{:dependency, {:path, path}} | page]
    end
  end

  defp by_hand(%{path: path, result: {:unknown, why}, lines: []}),
    do: Mix.shell().info("#{path} is left alone: #{why}.\n")

  defp by_hand(%{path: path, result: {:unknown, why}, where: where, lines: lines}) do
    text = Enum.map_join(lines, "\n", &("    " <> &1))
    Mix.shell().info("#{path} is left alone: #{why}.\nTo be added #{where}:\n\n#{text}\n")
  end

  # Whether what was to be written is.
  defp write(_root, _changes, [], _options) do
    Mix.shell().info("There is nothing to add.")
    true
  end

  defp write(root, changes, edits, options) do
    cond do
      options[:dry_run] ->
        Mix.shell().info("Would change #{paths(edits)}")
        true

      options[:yes] || Mix.shell().yes?("Write these changes?", default: :no) ->
        Installer.write!(root, changes)
        Mix.shell().info("Changed #{paths(edits)}")

        for %{note: note} = edit when note != nil <- edits,
            do: Mix.shell().info("#{edit.path}: #{note}")

        true

      true ->
        Mix.shell().info("Nothing was written.")
        false
    end
  end

  defp paths(changes), do: Enum.map_join(changes, ", ", & &1.path)
end
