defmodule Plausible.Webhooks.Installer.Dependency do
  @moduledoc false
  # The source of this package: the entry that Plausible's mix.exs has or will have.

  alias Plausible.Webhooks.Installer.Source

  @name :plausible_webhooks_phoenix
  @subdir "elixir_wrapper/plausible_webhooks_phoenix"
  @clone "deps/#{@name}"

  @type t :: {:path, Path.t()} | {:git, url :: String.t(), ref :: String.t() | nil}

  @doc "The entry of `mix.exs`, as `mix format` prints it in a list of dependencies."
  @spec lines(t()) :: [String.t()]
  def lines(dependency) do
    pairs =
      case dependency do
        {:path, path} -> [path: path]
        {:git, url, nil} -> [git: url, subdir: @subdir]
        {:git, url, ref} -> [git: url, ref: ref, subdir: @subdir]
      end

    pairs = Enum.map_join(pairs, ", ", fn {key, value} -> "#{key}: #{inspect(value)}" end)

    # The list is indented by six columns, and a comma follows.
    "{#{inspect(@name)}, #{pairs}}"
    |> Code.format_string!(line_length: 98 - 6 - 1)
    |> IO.iodata_to_binary()
    |> Kernel.<>(",")
    |> String.split("\n")
  end

  @doc "The entry that `mix.exs` has."
  @spec found(Source.t()) :: t() | nil
  def found(%Source{ast: ast}) do
    Enum.find_value(Macro.prewalker(ast), fn node ->
      with {name, options} <- Source.pair(node),
           @name <- Source.literal(name) do
        # Without brackets the pairs are a plain list.
        origin(if is_list(options), do: options, else: Source.literal(options) || [])
      else
        _other -> nil
      end
    end)
  end

  defp origin(options) do
    [path, git, ref] =
      for key <- [:path, :git, :ref], do: options |> Source.value(key) |> Source.literal()

    if path, do: {:path, path}, else: {:git, git || "", git && ref}
  end

  @doc "The folder of its files, relative to Plausible's folder `root`."
  @spec folder(t(), Path.t()) :: Path.t()
  def folder({:git, _url, _ref}, _root), do: Path.join(@clone, @subdir)

  def folder({:path, path}, root) do
    case Path.type(path) do
      :absolute -> relative(Path.split(Path.expand(root)), Path.split(Path.expand(path)))
      _relative -> path
    end
  end

  defp relative([part | root], [part | path]), do: relative(root, path)
  defp relative(root, path), do: Path.join(Enum.map(root, fn _up -> ".." end) ++ path)

  @doc "What every line that names one of its files contains."
  @spec mark(t(), Path.t()) :: String.t()
  def mark({:path, _path} = dependency, root), do: folder(dependency, root)
  def mark({:git, _url, _ref}, _root), do: @clone

  @doc """
  The folder that a Docker image needs before `mix deps.get`; `:outside` for one that
  Docker cannot reach.
  """
  @spec to_copy(t()) :: {:copy, Path.t()} | :nothing | :outside
  def to_copy({:git, _url, _ref}), do: :nothing

  def to_copy({:path, path}) do
    case Path.split(path) do
      [first | _] when first in ["..", "/"] -> :outside
      # The checkout, two folders up: the C++ sources are in it.
      parts -> {:copy, Path.join(["." | Enum.drop(parts, -2)]) |> Path.relative_to(".")}
    end
  end
end
