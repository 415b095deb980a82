defmodule Plausible.Webhooks.Installer.Diff do
  @moduledoc false
  # A unified diff, as `diff -u` writes it: it can be read, and given to `patch`.

  @context 3

  @spec unified(String.t(), String.t() | nil, String.t()) :: String.t()
  def unified(path, nil, new), do: IO.iodata_to_binary(header("/dev/null", "b/" <> path, "", new))

  def unified(path, old, new),
    do: IO.iodata_to_binary(header("a/" <> path, "b/" <> path, old, new))

  defp header(from, to, old, new) do
    hunks = split(old) |> List.myers_difference(split(new)) |> marked() |> hunks()
    ["--- ", from, "\n+++ ", to, "\n" | Enum.map(hunks, &hunk/1)]
  end

  # Each line with its end, so that one without is told from one with.
  defp split(text), do: Regex.scan(~r/[^\n]*\n|[^\n]+\z/, text) |> List.flatten()

  # {mark, line, number in the old text, number in the new one}
  defp marked(script) do
    {marked, _at} =
      script
      |> Enum.flat_map(fn {mark, lines} -> Enum.map(lines, &{mark, &1}) end)
      |> Enum.map_reduce({1, 1}, fn {mark, line}, {old, new} ->
        {{mark, line, old, new}, advance(mark, old, new)}
      end)

    marked
  end

  defp advance(:eq, old, new), do: {old + 1, new + 1}
  defp advance(:del, old, new), do: {old + 1, new}
  defp advance(:ins, old, new), do: {old, new + 1}

  defp hunks(marked) do
    changed = for {{mark, _, _, _}, at} <- Enum.with_index(marked), mark != :eq, do: at
    lines = List.to_tuple(marked)

    changed
    |> Enum.chunk_while([], &near/2, &{:cont, Enum.reverse(&1), []})
    |> Enum.reject(&(&1 == []))
    |> Enum.map(fn at ->
      first = max(hd(at) - @context, 0)
      last = min(List.last(at) + @context, tuple_size(lines) - 1)
      for n <- first..last, do: elem(lines, n)
    end)
  end

  defp near(at, [last | _] = chunk) when at - last > 2 * @context,
    do: {:cont, Enum.reverse(chunk), [at]}

  defp near(at, chunk), do: {:cont, [at | chunk]}

  defp hunk([{_mark, _line, old, new} | _] = lines) do
    at_old = range(old, Enum.count(lines, fn {mark, _, _, _} -> mark != :ins end))
    at_new = range(new, Enum.count(lines, fn {mark, _, _, _} -> mark != :del end))
    ["@@ -", at_old, " +", at_new, " @@\n" | Enum.map(lines, &printed/1)]
  end

  # A range of no lines is the one behind which they would be.
  defp range(first, 0), do: "#{first - 1},0"
  defp range(first, 1), do: "#{first}"
  defp range(first, count), do: "#{first},#{count}"

  defp printed({mark, line, _old, _new}) do
    mark = %{eq: " ", del: "-", ins: "+"}[mark]

    if String.ends_with?(line, "\n"),
      do: [mark, line],
      else: [mark, line, "\n\\ No newline at end of file\n"]
  end
end
