defmodule PlausibleWeb.Live.WebhookSettings.ForeignText do
  @moduledoc false
  # Text from outside, made unambiguous: control characters, characters that change the
  # direction of what follows, invisible characters and invalid bytes are written out.
  # HEEx escapes the markup; nothing here is ever marked as safe.

  # Control and format characters, separators, and letters by name that show nothing;
  # less the joiners that scripts and emoji need. Unassigned code points stay: Erlang's
  # tables are older than many an emoji.
  @unsafe ~r/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\x{034F}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{2065}\x{2800}\x{3164}\x{FFA0}\x{FFF0}-\x{FFF8}\x{E0000}-\x{E0FFF}]/u
  @joiners ["\u200C", "\u200D"]

  @doc """
  One line of text.

      iex> PlausibleWeb.Live.WebhookSettings.ForeignText.line("a\\u202Eb\\nc" <> <<255>>)
      "a[U+202E]b[U+000A]c[0xFF]"
  """
  @spec line(term()) :: String.t()
  def line(text) when is_binary(text), do: written_out(text, @joiners)
  def line(nil), do: ""
  def line(other), do: other |> inspect(limit: 5, printable_limit: 60) |> line()

  @doc "Text of several lines; keeps line ends and tabs."
  @spec block(binary() | nil) :: String.t()
  def block(nil), do: ""

  def block(text) when is_binary(text),
    do: text |> String.replace("\r\n", "\n") |> written_out(["\n", "\t" | @joiners])

  @doc "One line of at most `max` characters."
  @spec short(term(), pos_integer()) :: String.t()
  def short(text, max) do
    line = line(text)
    if String.length(line) > max, do: String.slice(line, 0, max - 1) <> "…", else: line
  end

  defp written_out(text, kept) do
    text
    |> valid([])
    |> String.replace(@unsafe, &if(&1 in kept, do: &1, else: code_point(&1)))
  end

  # The regular expression needs valid UTF-8.
  defp valid(text, done) do
    case :unicode.characters_to_binary(text) do
      binary when is_binary(binary) ->
        IO.iodata_to_binary([done, binary])

      {_why, good, <<byte, rest::binary>>} ->
        valid(rest, [done, good, "[0x", hex(byte, 2), "]"])
    end
  end

  defp code_point(<<code::utf8>>), do: "[U+#{hex(code, 4)}]"

  defp hex(number, digits), do: number |> Integer.to_string(16) |> String.pad_leading(digits, "0")
end
