defmodule Mix.Tasks.PlausibleWebhooks.Install do
  @shortdoc "Adds webhooks to Plausible's source"
  @moduledoc """
  Adds webhooks to Plausible's source: the child, the hooks, the configuration, the
  migration, the settings page, and the packages of the image.

      mix plausible_webhooks.install

  Shows what it would add to each file as a diff, and asks before it writes. It adds lines
  and changes none. A second run changes nothing; after an upgrade of this package, a run
  adds the migration that is missing. When a file does not look as expected, the task
  leaves it alone, says which lines go where, does the other files, and ends with status 1.

  The task reads and writes files; it neither starts nor compiles Plausible. Mix finds the
  task when this package is a dependency, so the first step is an entry in `mix.exs`:

      {:plausible_webhooks_phoenix,
       git: "https://...", ref: "...", subdir: "elixir_wrapper/plausible_webhooks_phoenix"}

  followed by `mix deps.get`. A checkout of this package needs no such entry:

      mix plausible_webhooks.install --root ../../../analytics

  ## Options

    * `--dry-run` - shows the diff and writes nothing
    * `--yes` - does not ask
    * `--no-page` - leaves the settings page out
    * `--root DIR` - Plausible's folder; default: the current one
    * `--path DIR` - adds the dependency by a path, relative to Plausible's folder
    * `--git URL`, `--ref REF` - adds the dependency from a repository

  An entry in `mix.exs` takes precedence over the last three. `docs/plausible.md` shows the
  change in full, and how to undo it.
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

    for {key, value} <- options,
        is_binary(value),
        String.trim(value) == "",
        do: Mix.raise("--#{key} must not be empty")

    if options[:path] && options[:git], do: Mix.raise("give --path or --git, not both")
    if options[:ref] && !options[:git], do: Mix.raise("--ref needs --git")
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

  # Whether there is nothing left to write.
  defp write(_root, changes, [], _options) do
    if Enum.all?(changes, &(&1.result == :done)),
      do: Mix.shell().info("There is nothing to add.")

    true
  end

  defp write(root, changes, edits, options) do
    cond do
      options[:dry_run] ->
        tell("Would change", edits)
        true

      options[:yes] || Mix.shell().yes?("Write these changes?", default: :no) ->
        write_files(root, changes)
        tell("Changed", edits)
        true

      true ->
        Mix.shell().info("Nothing was written.")
        false
    end
  end

  defp tell(what, edits) do
    Mix.shell().info("#{what}:\n" <> Enum.map_join(edits, "\n", &"    #{&1.path}"))

    for %{note: note} = edit when note != nil <- edits,
        do: Mix.shell().info("#{edit.path}: #{note}")
  end

  # Mix prints a stack trace with every other exception.
  defp write_files(root, changes) do
    Installer.write!(root, changes)
  rescue
    error in File.Error -> Mix.raise(Exception.message(error))
  end

  defp paths(changes), do: Enum.map_join(changes, ", ", & &1.path)
end
