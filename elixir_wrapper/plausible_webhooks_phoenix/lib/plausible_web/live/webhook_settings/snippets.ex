defmodule PlausibleWeb.Live.WebhookSettings.Snippets do
  @moduledoc false
  # A curl command that sends a request again, and code in six languages that verifies it,
  # filled with the values of the request. The code is that of docs/receivers, and reads the
  # secret from the environment.
  # The text is ASCII whatever the values hold, and a shell or a compiler reads exactly
  # their bytes from it: markup, quotes and bidirectional characters neither run nor hide
  # anything.

  @languages [
    node: "Node.js",
    python: "Python",
    php: "PHP",
    ruby: "Ruby",
    go: "Go",
    elixir: "Elixir"
  ]

  @extensions [node: "cjs", python: "py", php: "php", ruby: "rb", go: "go", elixir: "exs"]
  @project Path.expand("../../../..", __DIR__)
  # A Hex package has in receivers/ what the repository has in docs/receivers/.
  @receivers Enum.find(
               [Path.join(@project, "receivers"), Path.expand("../../docs/receivers", @project)],
               &File.dir?/1
             )

  # The function of docs/receivers, and a program that calls it with the values of a request.
  @templates (for {language, extension} <- @extensions, into: %{} do
                function = Path.join(@receivers, "verify.#{extension}")
                program = Path.join(@project, "priv/snippets/values.#{extension}")
                @external_resource function
                @external_resource program
                {language, File.read!(function) <> "\n" <> File.read!(program)}
              end)

  # The imports of a Go file stand before its functions.
  @templates Map.update!(@templates, :go, fn code ->
               String.replace(code, "base64\"\n", "base64\"\n\t\"fmt\"\n\t\"os\"\n")
             end)

  @type request :: %{
          url: String.t(),
          headers: [{String.t(), String.t()}],
          body: binary(),
          timestamp: integer()
        }

  @spec languages() :: keyword(String.t())
  def languages, do: @languages

  @doc "The language of that name, or `nil`."
  @spec language(term()) :: atom() | nil
  def language(name),
    do: Enum.find_value(@languages, fn {key, _} -> to_string(key) == name && key end)

  # A command has a limit for the size of an argument; the shell's own `printf` has none.
  @argument_max 65_536

  @doc "A command for bash and zsh."
  @spec curl(request()) :: String.t()
  def curl(%{body: body} = request) do
    headers = for {name, value} <- request.headers, do: ["-H ", shell("#{name}: #{value}")]
    post = ["curl -g -i -X POST", shell(request.url)] ++ headers

    # A leading `@` would name a file; a JSON object has none.
    parts =
      if byte_size(body) <= @argument_max,
        do: post ++ ["--data-binary " <> shell(body)],
        else: ["printf %s " <> shell(body) <> " |" | post] ++ ["--data-binary @-"]

    parts |> Enum.intersperse(" \\\n  ") |> IO.iodata_to_binary()
  end

  @spec verify(atom(), request()) :: String.t()
  def verify(language, request) do
    @templates
    |> Map.fetch!(language)
    |> String.replace("{{id}}", literal(language, header(request, "webhook-id")))
    |> String.replace("{{timestamp}}", literal(language, header(request, "webhook-timestamp")))
    |> String.replace("{{signature}}", literal(language, header(request, "webhook-signature")))
    |> String.replace("{{body}}", bytes(language, literal(language, request.body)))
    |> String.trim_trailing()
  end

  defp header(request, name) do
    Enum.find_value(request.headers, "", fn {given, value} ->
      String.downcase(given) == name && value
    end)
  end

  defp shell(text) do
    if text =~ ~r/\A[\x20-\x7e]*\z/ do
      "'" <> String.replace(text, "'", ~S('\'')) <> "'"
    else
      "$'" <> escaped(text, ~c"'", &"\\x#{&1}") <> "'"
    end
  end

  # A string literal of the language, without interpolation.
  defp literal(:python, text), do: "\"" <> escaped(text, ~c"\"", &"\\x#{&1}") <> "\""
  defp literal(:php, text), do: "\"" <> escaped(text, ~c"\"$", &"\\x#{&1}") <> "\""
  defp literal(_language, text), do: "\"" <> escaped(text, ~c"\"", &"\\x#{&1}", ~c"#") <> "\""

  # A backslash precedes `quoted` characters and itself; `as_bytes` and everything but
  # visible ASCII become byte escapes.
  defp escaped(text, quoted, byte, as_bytes \\ []) do
    for <<char <- text>>, into: "" do
      cond do
        char == ?\\ or char in quoted -> <<?\\, char>>
        char in 0x20..0x7E and char not in as_bytes -> <<char>>
        true -> byte.(char |> Integer.to_string(16) |> String.pad_leading(2, "0"))
      end
    end
  end

  defp bytes(:node, literal), do: "Buffer.from(#{literal}, \"latin1\")"
  defp bytes(:python, literal), do: "b" <> literal
  defp bytes(:go, literal), do: "[]byte(#{literal})"
  defp bytes(:ruby, literal), do: literal <> ".b"
  defp bytes(_language, literal), do: literal
end
