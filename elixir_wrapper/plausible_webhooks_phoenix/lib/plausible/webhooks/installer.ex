defmodule Plausible.Webhooks.Installer do
  @moduledoc """
  The change that brings webhooks into Plausible's source; what
  `mix plausible_webhooks.install` shows and makes.

      changes = Plausible.Webhooks.Installer.plan("/src/analytics")
      for %{result: {:edit, _old, _new}} = change <- changes,
          do: IO.write(Plausible.Webhooks.Installer.diff(change))

  It only adds lines. Places are found in the syntax tree, so that it fits older and
  newer versions of Plausible; every other line stays as it is, byte for byte. A file
  in which a place is not found is left alone. What was added is looked for again
  before it counts: a second run finds everything there and changes nothing.
  """

  alias Plausible.Webhooks.Installer.{Build, Dependency, Diff, Hooks, Page, Source, Step}

  @default {:path, "../plausible-webhooks/elixir_wrapper/plausible_webhooks_phoenix"}

  @typedoc """
  `result`: `:done` when nothing is to do; `{:edit, old, new}` with both texts, `old`
  is `nil` for a new file; `{:unknown, why}` when the place was not found. `where` and
  `lines` say what is to be added by hand then.
  """
  @type change :: %{
          path: Path.t(),
          result: :done | {:edit, String.t() | nil, String.t()} | {:unknown, String.t()},
          where: String.t(),
          lines: [String.t()],
          note: String.t() | nil
        }

  @doc """
  What is to be changed in the folder `root`; reads, and writes nothing.

  Options:

    * `:dependency` - `{:path, path}`, seen from `root`, or `{:git, url, ref}` (`nil`:
      none); default `#{inspect(@default)}`. What `mix.exs` says already counts more.
    * `:page` - with the settings page, default `true`.
    * `:now` - a `NaiveDateTime` for the name of the migration, default now.
  """
  @spec plan(Path.t(), keyword()) :: [change()]
  def plan(root, options \\ []) do
    defaults = [dependency: @default, page: true, now: NaiveDateTime.utc_now()]
    options = Keyword.validate!(options, defaults)

    context = %{
      root: root,
      now: options[:now],
      eol: eol(root),
      dependency: dependency(root) || options[:dependency]
    }

    steps =
      Hooks.steps() ++
        Build.steps(context) ++ if(options[:page], do: Page.steps(context), else: [])

    steps |> Enum.sort_by(& &1.path) |> Enum.map(&change(&1, read(root, &1.path)))
  end

  # What is new ends its lines as what is there does.
  defp eol(root), do: if((read(root, "mix.exs") || "") =~ "\r\n", do: "\r\n", else: "\n")

  defp dependency(root) do
    with text when text != nil <- read(root, "mix.exs"),
         {:ok, source} <- Source.elixir(text) do
      Dependency.found(source)
    else
      _unreadable -> nil
    end
  end

  defp read(root, path) do
    case File.read(Path.join(root, path)) do
      {:ok, text} -> text
      {:error, _reason} -> nil
    end
  end

  defp change(%Step{} = step, old) do
    result =
      case step.edit.(old) do
        {:ok, source} -> checked(step, old, Source.to_text(source))
        other -> other
      end

    {result, lines} =
      case result do
        {:unknown, why, lines} -> {{:unknown, why}, lines}
        result -> {result, step.lines}
      end

    step |> Map.take([:path, :where, :note]) |> Map.merge(%{result: result, lines: lines})
  end

  # Two tries cost a moment; a place that was mistaken would cost an afternoon.
  defp checked(step, old, new) do
    case step.edit.(new) do
      :done -> {:edit, old, new}
      _not_found_again -> {:unknown, "what was added is not found again"}
    end
  end

  @doc "The change of one file as a unified diff; empty when there is none."
  @spec diff(change()) :: String.t()
  def diff(%{path: path, result: {:edit, old, new}}), do: Diff.unified(path, old, new)
  def diff(_no_edit), do: ""

  @doc """
  Writes the edits among the changes into the folder `root`. Raises a `File.Error` before
  it writes the first when one of them cannot be written.
  """
  @spec write!(Path.t(), [change()]) :: :ok
  def write!(root, changes) do
    edits =
      for %{path: path, result: {:edit, _old, new}} <- changes, do: {Path.join(root, path), new}

    for {path, _new} <- edits, do: writable!(path)
    for {path, new} <- edits, do: File.write!(path, new)
    :ok
  end

  # The folder of a new file is made, and the file tried: what is left of it is empty.
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
