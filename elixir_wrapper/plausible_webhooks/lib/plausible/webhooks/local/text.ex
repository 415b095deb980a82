defmodule Plausible.Webhooks.Local.Text do
  @moduledoc false
  # Requests and JSON for a terminal. What a stranger wrote moves no cursor and changes no
  # colour: control characters are left out.

  @width 88

  @doc "A request as it arrived: its first line, its headers, its body."
  @spec request(String.t(), [{String.t(), String.t()}], binary()) :: String.t()
  def request(path, headers, body) do
    headers = for {name, value} <- headers, do: "#{name}: #{value}"

    ["POST #{path}" | headers]
    |> Enum.concat(["" | body |> json() |> String.split("\n")])
    |> Enum.map_join("\n", &String.trim_trailing("    " <> plain(&1)))
  end

  @doc "The text without control characters; bytes that are no text become U+FFFD."
  @spec plain(binary()) :: String.t()
  def plain(text),
    do: text |> String.chunk(:valid) |> Enum.map_join(&valid/1) |> String.replace(~r/\p{C}/u, "")

  defp valid(text), do: if(String.valid?(text), do: text, else: "\uFFFD")

  @doc """
  JSON, indented and in its own order. An object or array that fits into a line stays in it,
  and short members share lines. Other text is returned as it is.

      iex> Plausible.Webhooks.Local.Text.json(~S({"b":[1,{}],"a":"x, y"}))
      ~S({"b": [1, {}], "a": "x, y"})
  """
  @spec json(binary()) :: String.t()
  def json(text) do
    case Plausible.Webhooks.Native.decode(text) do
      {:ok, _value} -> text |> tokens() |> value("") |> elem(0)
      {:error, _not_json} -> text
    end
  end

  defp tokens(text) do
    ~r/"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+/s |> Regex.scan(text) |> Enum.map(&hd/1)
  end

  # One value from the front of the tokens.
  defp value([open | rest], indent) when open in ["{", "["] do
    inner = indent <> "  "
    {items, [close | rest]} = items(rest, inner, [])
    line = open <> Enum.join(items, ", ") <> close

    if String.length(indent <> line) <= @width and not (line =~ "\n"),
      do: {line, rest},
      else: {"#{open}\n#{inner}#{lines(items, inner)}\n#{indent}#{close}", rest}
  end

  defp value([scalar | rest], _indent), do: {scalar, rest}

  # As many items on a line as fit, if each of them is one line.
  defp lines(items, indent) do
    if Enum.any?(items, &(&1 =~ "\n")) do
      Enum.join(items, ",\n" <> indent)
    else
      Enum.reduce(items, fn item, text ->
        last = text |> String.split("\n") |> List.last()
        fits? = String.length(last <> item) + 2 <= @width
        text <> if(fits?, do: ", ", else: ",\n" <> indent) <> item
      end)
    end
  end

  defp items([close | _] = tokens, _indent, items) when close in ["}", "]"],
    do: {Enum.reverse(items), tokens}

  defp items(["," | rest], indent, items), do: items(rest, indent, items)

  defp items([key, ":" | rest], indent, items) do
    {value, rest} = value(rest, indent)
    items(rest, indent, ["#{key}: #{value}" | items])
  end

  defp items(tokens, indent, items) do
    {value, rest} = value(tokens, indent)
    items(rest, indent, [value | items])
  end
end
