defmodule Plausible.Webhooks.Faults.Table do
  @moduledoc false
  # The results as text.

  @columns [
    {"kind", 46},
    {"class", 18},
    {"ms", 6},
    {"sent KiB", 8},
    {"MiB", 4},
    {"slice +ms", 9},
    {"verdict", 0}
  ]

  def print(rows, results) do
    line(Enum.map(@columns, &elem(&1, 0)))
    for row <- rows, do: line(cells(row, results))
    all = results.product.all
    longest = rows |> Enum.map(&results.engine[&1.kind].over_ms) |> Enum.max(fn -> 0 end)
    short = Enum.count(rows, &(shortfalls(&1, results) != []))
    slice = "longest slice #{round(longest)} ms beyond what was asked"
    IO.puts("\n#{length(rows)} rows, #{short} short; #{slice}")

    IO.puts(
      "whole instance, all rows at once: #{div(all.memory, 1_048_576)} MiB of memory" <>
        words(all.short)
    )
  end

  @doc "What a row lacks, by run."
  def shortfalls(row, results) do
    engine = for text <- results.engine[row.kind].short, do: "engine: #{text}"
    engine ++ for text <- results.product[row.kind].short, do: "instance: #{text}"
  end

  defp cells(row, results) do
    figures = results.engine[row.kind]

    [
      row.kind,
      figures.class,
      figures.ms,
      div(figures.bytes, 1_024),
      div(figures.memory, 1_048_576),
      round(figures.over_ms),
      verdict(shortfalls(row, results))
    ]
  end

  defp verdict([]), do: "ok"
  defp verdict(short), do: "SHORT " <> Enum.join(short, "; ")

  defp words([]), do: ""
  defp words(short), do: ", SHORT " <> Enum.join(short, "; ")

  defp line(cells) do
    @columns
    |> Enum.zip_with(cells, fn {_name, width}, cell -> String.pad_trailing("#{cell}", width) end)
    |> Enum.join(" ")
    |> IO.puts()
  end
end
