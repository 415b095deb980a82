defmodule Plausible.Webhooks.JsonTerms do
  @moduledoc false
  # Terms that encode/1 takes, each with what a JSON decoder must make of it, drawn from
  # the process's :rand state: the same seed gives the same terms.

  @depth_max 5

  @atoms [:a, :ok, :undefined, :nil?, :"", :"quo\"te", :"new\nline", Plausible]
  @letters ["a", "Z", "0", " ", "\"", "\\", "/", "\b", "\n", "\0", "\x1f", "\x7f"] ++
             ["é", "߿", "ࠀ", "€", "\u2028", "\uFEFF", "\uFFFF", "𐀀", "😀", "\u{10FFFF}"]

  @doc "{term, what it is once decoded}"
  @spec any(non_neg_integer()) :: {term(), term()}
  def any(depth \\ 0) do
    case pick(if depth >= @depth_max, do: 11, else: 17) do
      0 -> same(Enum.random([nil, true, false]))
      1 -> named(Enum.random(@atoms))
      n when n in 2..4 -> same(integer())
      n when n in 5..6 -> same(float())
      n when n in 7..10 -> same(text())
      n when n in 11..13 -> list(depth + 1)
      _ -> map(depth + 1)
    end
  end

  @doc "{term with `fault` somewhere inside, the path to it}"
  @spec around(term()) :: {term(), [String.t() | non_neg_integer()]}
  def around(fault) do
    Enum.reduce(1..(pick(6) + 1)//1, {fault, []}, fn
      1, inner -> inner
      _, inner -> if pick(2) == 0, do: around_list(inner), else: around_map(inner)
    end)
  end

  # Only valid terms stand before the fault: the first fault is the one that is named.
  defp around_list({fault, path}) do
    before = for _ <- 1..pick(4)//1, do: elem(any(3), 0)
    {before ++ [fault | Enum.random([[], [1], [self()]])], [length(before) | path]}
  end

  defp around_map({fault, path}) do
    kind = kind()
    {term, _wanted} = map(3, kind)
    {key, name} = key(kind)
    {Map.put(term, key, fault), [cut(name) | path]}
  end

  # A key in a path is cut to 64 bytes, at the end of a character.
  defp cut(name) when byte_size(name) <= 64, do: name

  defp cut(name) do
    Enum.find_value(64..61//-1, fn size ->
      front = binary_part(name, 0, size)
      String.valid?(front) && front
    end)
  end

  @doc """
  Whether JSON.stringify of what JSON.parse read is the value. JavaScript has
  doubles only: integers beyond 2^53 are rounded, those beyond a double's range
  are lost, and a float without a fraction comes back as an integer.
  """
  @spec same_to_node?(term(), term()) :: boolean()
  def same_to_node?(wanted, got) when is_integer(wanted) do
    cond do
      abs(wanted) <= 9_007_199_254_740_992 -> wanted == got
      abs(wanted) >= Integer.pow(2, 1024) - Integer.pow(2, 970) -> got == nil
      true -> is_number(got) and to_double(wanted) == to_double(got)
    end
  end

  def same_to_node?(wanted, got) when is_float(wanted),
    do: is_number(got) and wanted == to_double(got)

  def same_to_node?(wanted, got) when is_list(wanted) do
    is_list(got) and length(wanted) == length(got) and
      Enum.zip_with(wanted, got, &same_to_node?/2) |> Enum.all?()
  end

  def same_to_node?(wanted, got) when is_map(wanted) do
    is_map(got) and map_size(wanted) == map_size(got) and
      Enum.all?(wanted, fn {key, value} ->
        is_map_key(got, key) and same_to_node?(value, Map.fetch!(got, key))
      end)
  end

  def same_to_node?(wanted, got), do: wanted === got

  # Not `* 1.0`: that rounds a large integer more than once.
  defp to_double(number) when is_integer(number), do: String.to_float("#{number}.0")
  defp to_double(number), do: number

  defp same(term), do: {term, term}
  defp pick(n), do: :rand.uniform(n) - 1

  defp integer do
    case pick(4) do
      0 ->
        pick(10)

      1 ->
        pick(2_000_001) - 1_000_000

      2 ->
        sign() * (Integer.pow(2, Enum.random([31, 53, 59, 60, 62])) + pick(3) - 1)

      3 ->
        # Below the numbers that JavaScript rounds up to 2^63.
        sign() * :rand.uniform(Integer.pow(2, 63) - 1024)
    end
  end

  defp sign, do: Enum.random([1, -1])

  defp float do
    case pick(4) do
      0 -> sign() * (pick(1000) * 1.0)
      1 -> sign() * :rand.uniform()
      2 -> (:rand.uniform() - 0.5) * :math.pow(10, pick(38) - 20)
      3 -> any_float()
    end
  end

  defp any_float do
    case <<:rand.uniform(Integer.pow(2, 64)) - 1::64>> do
      # JavaScript writes floats up to 1.0e21 as integers, beyond 64 bits.
      <<float::float>> when abs(float) < 9.0e18 or abs(float) >= 1.0e21 -> float
      _other -> any_float()
    end
  end

  defp text do
    letters = Enum.random([["a", "b", " "], @letters, ["é", "a"], ["😀", "\n"]])
    size = Enum.random([0, 1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64, pick(100), pick(300)])
    IO.iodata_to_binary(for _ <- 1..size//1, do: Enum.random(letters))
  end

  defp kind, do: Enum.random([:atom, :binary, :binary])

  defp key(:atom), do: named(Enum.random(@atoms))

  defp key(:binary) do
    if pick(4) == 0,
      do: same(Enum.random(["__proto__", "constructor", "0", "1", "a", "__struct__"])),
      else: same(text())
  end

  defp named(term), do: {term, name_of(term)}

  defp name_of(key) when is_atom(key), do: Atom.to_string(key)
  defp name_of(key), do: key

  defp list(depth) do
    Enum.unzip(for _ <- 1..size()//1, do: any(depth))
  end

  defp map(depth, kind \\ kind()) do
    pairs = for _ <- 1..size()//1, do: {key(kind), any(depth)}

    {Map.new(pairs, fn {{key, _}, {value, _}} -> {key, value} end),
     Map.new(pairs, fn {{_, name}, {_, wanted}} -> {name, wanted} end)}
  end

  # Now and then beyond 32, where maps change their representation.
  defp size, do: if(pick(200) == 0, do: 30 + pick(40), else: pick(5))
end
