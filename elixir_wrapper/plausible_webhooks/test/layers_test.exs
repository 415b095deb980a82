defmodule Plausible.Webhooks.LayersTest do
  # Runs alone: it captures what Mix prints.
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  # From the top. A file depends on files of its own layer and of those below.
  @layers ~w(top local manage ingest accept deliver store runtime vocabulary)

  # A file's layer is its folder; the files at the root are the vocabulary, except these.
  @root "lib/plausible/webhooks"
  @layer_of %{
    "#{@root}.ex" => "top",
    "#{@root}/supervisor.ex" => "top",
    "#{@root}/options.ex" => "top",
    "#{@root}/testing.ex" => "top",
    "#{@root}/store.ex" => "store",
    "#{@root}/cluster.ex" => "runtime",
    # The stubs of the native libraries ask it.
    "#{@root}/runtime/native_library.ex" => "vocabulary"
  }

  defp layer(file) do
    folder = file |> Path.relative_to(@root) |> Path.split() |> hd()

    Map.get_lazy(@layer_of, file, fn ->
      cond do
        folder in @layers -> folder
        String.starts_with?(file, "lib/mix") -> "top"
        true -> "vocabulary"
      end
    end)
  end

  # A file at the margin, then those it depends on.
  defp dependencies do
    capture_io(fn -> Mix.Task.rerun("xref", ["graph", "--format", "plain", "--no-compile"]) end)
    |> String.split("\n", trim: true)
    |> Enum.reduce({"", []}, fn line, {from, found} ->
      case Regex.run(~r"^(\W+ )?(\S+)", line) do
        [_line, "", file] -> {file, found}
        [_line, _branch, to] -> {from, [{from, to} | found]}
      end
    end)
    |> elem(1)
    |> Enum.filter(fn {from, _to} -> String.starts_with?(from, "lib/") end)
  end

  test "arrows point down, and there is no cycle" do
    dependencies = dependencies()
    assert length(dependencies) > 200

    upwards =
      for {from, to} <- dependencies,
          place(from) > place(to),
          do: "#{from} (#{layer(from)}) -> #{to} (#{layer(to)})"

    assert upwards == []

    graph = :digraph.new()
    for {from, to} <- dependencies, file <- [from, to], do: :digraph.add_vertex(graph, file)
    for {from, to} <- dependencies, do: :digraph.add_edge(graph, from, to)
    assert :digraph_utils.cyclic_strong_components(graph) == []
  end

  defp place(file), do: Enum.find_index(@layers, &(&1 == layer(file)))
end
