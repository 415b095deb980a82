defmodule Plausible.Webhooks.Ingest.Glob do
  @moduledoc false
  # A page path with `*`, as Plausible's statistics read it: as a regular expression in which
  # `*` and `**` both mean "any characters, slashes too", everything else is literal, and the
  # whole is anchored at both ends.
  #
  # `|` is the one character that they leave unescaped, and its alternatives are not grouped:
  # `/a*|/b*` means "begins with /a" or "ends with something that holds /b". We do the same,
  # so that a webhook fires for what the dashboard counts. As there, a path without `*` is
  # compared literally, `|` and all.
  #
  # No regex engine: an alternative is a prefix, pieces that follow each other, and a suffix.
  # The leftmost place of each piece is always right, so nothing is tried twice and no pattern
  # takes exponential time.

  @type branch ::
          {prefix :: binary(), pieces :: [binary()], suffix :: binary(), size :: integer()}

  @spec parse(binary()) :: :exact | [branch()]
  def parse(path) do
    if String.contains?(path, "*") do
      path |> String.split("|") |> open_ends() |> Enum.map(&branch/1) |> Enum.uniq()
    else
      :exact
    end
  end

  # The anchors belong to the first and the last alternative only.
  defp open_ends([only]), do: [only]
  defp open_ends([first | rest]), do: [first <> "*" | open_starts(rest)]

  defp open_starts([last]), do: ["*" <> last]
  defp open_starts([middle | rest]), do: ["*" <> middle <> "*" | open_starts(rest)]

  defp branch(pattern) do
    [prefix | rest] = :binary.split(pattern, "*", [:global])
    {pieces, [suffix]} = Enum.split(rest, -1)
    pieces = Enum.reject(pieces, &(&1 == ""))
    size = Enum.reduce(pieces, byte_size(prefix) + byte_size(suffix), &(byte_size(&1) + &2))
    {prefix, pieces, suffix, size}
  end

  @spec match?(branch(), binary()) :: boolean()
  def match?({_prefix, _pieces, _suffix, size}, path) when byte_size(path) < size, do: false

  def match?({prefix, pieces, suffix, _size}, path) do
    from = byte_size(prefix)
    to = byte_size(path) - byte_size(suffix)

    (from == 0 or binary_part(path, 0, from) == prefix) and
      (suffix == "" or binary_part(path, to, byte_size(suffix)) == suffix) and
      pieces_follow?(pieces, path, from, to)
  end

  defp pieces_follow?([], _path, _from, _to), do: true

  defp pieces_follow?([piece | rest], path, from, to) do
    case :binary.match(path, piece, scope: {from, to - from}) do
      {at, length} -> pieces_follow?(rest, path, at + length, to)
      :nomatch -> false
    end
  end

  @doc false
  # Every run of three bytes that a path must hold to match the branch, as
  # integers; a NUL stands for the path's start and its end. Empty when the
  # branch has no literal that long.
  @spec grams(branch()) :: [non_neg_integer()]
  def grams({prefix, pieces, suffix, _size}) do
    edges =
      if(prefix == "", do: [], else: [<<0, prefix::binary>>]) ++
        if(suffix == "", do: [], else: [<<suffix::binary, 0>>])

    (edges ++ pieces) |> Enum.flat_map(&runs/1) |> Enum.uniq()
  end

  defp runs(<<gram::24, _::binary>> = literal) do
    <<_, rest::binary>> = literal
    [gram | runs(rest)]
  end

  defp runs(_short), do: []
end
