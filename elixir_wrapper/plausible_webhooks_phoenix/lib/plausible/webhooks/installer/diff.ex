defmodule Plausible.Webhooks.Installer.Diff do
  @moduledoc false
  # A unified diff, as `diff -u` prints it and `patch` takes it.

  @context 3

  @spec unified(String.t(), String.t() | nil, String.t()) :: String.t()
  def unified(path, old, new) do
    lines = compare(old || "", new)
    from = if old, do: "a/" <> path, else: "/dev/null"
    IO.iodata_to_binary(["--- ", from, "\n+++ b/", path, "\n" | Enum.map(hunks(lines), &hunk/1)])
  end

  # {mark, line, its number in the old text, in the new text}
  defp compare(old, new) do
    {lines, _next} =
      List.myers_difference(split(old), split(new))
      |> Enum.flat_map(fn {mark, lines} -> Enum.map(lines, &{mark, &1}) end)
      |> Enum.map_reduce({1, 1}, fn {mark, line}, {old, new} ->
        next =
          {if(mark == :ins, do: old, else: old + 1), if(mark == :del, do: new, else: new + 1)}

        {{mark, line, old, new}, next}
      end)

    lines
  end

  # Each line with its newline, so that a last line without one differs.
  defp split(text), do: Regex.scan(~r/[^\n]*\n|[^\n]+\z/, text) |> List.flatten()

  # Changes at most two contexts apart share a hunk.
  defp hunks(lines) do
    for({{mark, _, _, _}, at} <- Enum.with_index(lines), mark != :eq, do: at)
    |> Enum.chunk_while(
      [],
      fn
        at, [last | _] = chunk when at - last > 2 * @context -> {:cont, chunk, [at]}
        at, chunk -> {:cont, [at | chunk]}
      end,
      &{:cont, &1, []}
    )
    |> Enum.reject(&(&1 == []))
    |> Enum.map(fn [last | _] = chunk ->
      Enum.slice(lines, max(List.last(chunk) - @context, 0)..(last + @context))
    end)
  end

  defp hunk([{_mark, _line, old, new} | _] = lines) do
    [old, new] =
      for {first, other} <- [{old, :ins}, {new, :del}],
          do: range(first, Enum.count(lines, &(elem(&1, 0) != other)))

    ["@@ -", old, " +", new, " @@\n" | Enum.map(lines, &printed/1)]
  end

  # An empty range names the line before it.
  defp range(first, 0), do: "#{first - 1},0"
  defp range(first, 1), do: "#{first}"
  defp range(first, count), do: "#{first},#{count}"

  defp printed({mark, line, _old, _new}) do
    end_of_line =
      if String.ends_with?(line, "\n"), do: "", else: "\n\\ No newline at end of file\n"

    [%{eq: " ", del: "-", ins: "+"}[mark], line, end_of_line]
  end
end
