defmodule Plausible.Webhooks.Installer.Dependency do
  @moduledoc false
  # Where Plausible has this package from: what stands in its mix.exs, or is going to.

  alias Plausible.Webhooks.Installer.Source

  @name :plausible_webhooks_phoenix
  @subdir "elixir_wrapper/plausible_webhooks_phoenix"

  @type t :: {:path, Path.t()} | {:git, url :: String.t(), ref :: String.t() | nil}

  @doc "The entry of `mix.exs`."
  @spec lines(t()) :: [String.t()]
  def lines({:path, path}), do: entry(path: path)
  def lines({:git, url, nil}), do: entry(git: url, subdir: @subdir)
  def lines({:git, url, ref}), do: entry(git: url, ref: ref, subdir: @subdir)

  # As `mix format` has it in a list of dependencies, which is six columns in.
  defp entry(options) do
    pairs = Enum.map_join(options, ", ", fn {key, value} -> "#{key}: #{inspect(value)}" end)

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
        # Without brackets the pairs are a list that is no literal.
        origin(if is_list(options), do: options, else: Source.literal(options) || [])
      else
        _other -> nil
      end
    end)
  end

  defp origin(options) do
    [path, git, ref] = for key <- [:path, :git, :ref], do: text(options, key)

    cond do
      path -> {:path, path}
      git -> {:git, git, ref}
      true -> {:git, "", nil}
    end
  end

  defp text(options, key) do
    with node when node != nil <- Source.value(options, key), do: Source.literal(node)
  end

  @doc "Where its files are, seen from Plausible's folder `root`."
  @spec folder(t(), Path.t()) :: Path.t()
  def folder({:path, path}, root) do
    case Path.type(path) do
      :absolute -> from(Path.split(Path.expand(root)), Path.split(Path.expand(path)))
      _relative -> path
    end
  end

  def folder({:git, _url, _ref}, _root), do: Path.join(clone(), @subdir)

  defp from([part | root], [part | path]), do: from(root, path)
  defp from(root, path), do: Path.join(Enum.map(root, fn _up -> ".." end) ++ path)

  @doc "What a line that names its files has in it, whichever of them it names."
  @spec mark(t(), Path.t()) :: String.t()
  def mark({:path, _path} = dependency, root), do: folder(dependency, root)
  def mark({:git, _url, _ref}, _root), do: clone()

  defp clone, do: "deps/#{@name}"

  @doc """
  What of Plausible's folder has to be in a Docker image before `mix deps.get`:
  `:outside` for what Docker cannot reach.
  """
  @spec to_copy(t()) :: {:copy, Path.t()} | :nothing | :outside
  def to_copy({:git, _url, _ref}), do: :nothing

  def to_copy({:path, path}) do
    case Path.split(path) do
      [".." | _] -> :outside
      ["/" | _] -> :outside
      # The checkout: the first of the folders, since C++ sources are beside it.
      parts -> {:copy, parts |> Enum.drop(-2) |> checkout()}
    end
  end

  defp checkout([]), do: "."
  defp checkout(parts), do: Path.join(parts)
end
