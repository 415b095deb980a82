defmodule Plausible.Webhooks.Installer.Source do
  @moduledoc false
  # A text and, when it is Elixir, where its parts stand. Places are found in the
  # syntax tree, and changed in the lines: what a formatter has printed anew would
  # bury one line of ours under many changes of its own.
  #
  # Literals have no place in a syntax tree; here they are in a block that has one
  # ({:__block__, meta, [literal]}), and `literal/1` takes them out.

  alias __MODULE__

  @enforce_keys [:lines, :eol]
  defstruct [:lines, :eol, :ast]

  @type ast :: Macro.t()
  @typedoc "`eol` is what a line ends with before its newline: `\\r` or nothing."
  @type t :: %Source{lines: [String.t()], eol: String.t(), ast: ast() | nil}
  @typedoc "A function with `do ... end`. `body` is what it does, one after the other."
  @type def_node :: %{name: atom(), args: [ast()], body: [ast()], node: ast()}

  @doc "Of any text: it has lines, and no tree."
  @spec text(String.t()) :: t()
  def text(text) do
    eol = if String.contains?(text, "\r\n"), do: "\r", else: ""
    %Source{lines: String.split(text, "\n"), eol: eol}
  end

  @doc "Of Elixir; `{:error, text}` when it is none."
  @spec elixir(String.t()) :: {:ok, t()} | {:error, String.t()}
  def elixir(text) do
    options = [
      columns: true,
      token_metadata: true,
      emit_warnings: false,
      literal_encoder: fn literal, meta -> {:ok, {:__block__, meta, [literal]}} end
    ]

    case Code.string_to_quoted(text, options) do
      {:ok, ast} -> {:ok, %{text(text) | ast: ast}}
      {:error, _where} -> {:error, "it is no Elixir that can be read"}
    end
  end

  @spec to_text(t()) :: String.t()
  def to_text(%Source{lines: lines}), do: Enum.join(lines, "\n")

  # --- lines, from 1

  @spec line(t(), pos_integer()) :: String.t()
  def line(%Source{lines: lines}, number),
    do: lines |> Enum.at(number - 1, "") |> String.replace_suffix("\r", "")

  @spec insert_before(t(), pos_integer(), [String.t()]) :: t()
  def insert_before(source, number, lines), do: insert_after(source, number - 1, lines)

  @spec insert_after(t(), non_neg_integer(), [String.t()]) :: t()
  def insert_after(%Source{lines: old, eol: eol} = source, number, lines) do
    {before, rest} = Enum.split(old, number)
    %{source | lines: before ++ Enum.map(lines, &(&1 <> eol)) ++ rest}
  end

  @doc "The lines with the white space in front that line `number` has."
  @spec indented(t(), pos_integer(), [String.t()]) :: [String.t()]
  def indented(source, number, lines) do
    [space] = Regex.run(~r/^\s*/, line(source, number))
    for line <- lines, do: if(line == "", do: "", else: space <> line)
  end

  # --- the tree

  @doc "Every node of a tree that `fun` says yes to, in the order of the text."
  @spec find(ast(), (ast() -> boolean())) :: [ast()]
  def find(ast, fun), do: ast |> Macro.prewalker() |> Enum.filter(fun)

  @doc "The literal of a node, `nil` for what is none."
  @spec literal(ast()) :: term()
  def literal({:__block__, _meta, [literal]}) when not is_tuple(literal), do: literal
  def literal(_node), do: nil

  @doc "The two sides of a pair that is written as a tuple."
  @spec pair(ast()) :: {ast(), ast()} | nil
  def pair({:__block__, _meta, [{left, right}]}), do: {left, right}
  def pair(_node), do: nil

  @doc "The name of a variable, `nil` for what is none."
  @spec variable(ast()) :: atom() | nil
  def variable({name, _meta, context}) when is_atom(name) and is_atom(context), do: name
  def variable(_node), do: nil

  @doc "The value of a key in the pairs of a keyword list or a map."
  @spec value([{ast(), ast()}], atom()) :: ast() | nil
  def value(pairs, key) do
    Enum.find_value(pairs, fn
      {left, right} -> if literal(left) == key, do: right
      _no_pair -> nil
    end)
  end

  @typedoc "What `alias` says: the short name and what it stands for."
  @type aliases :: %{atom() => [atom()]}

  @doc "Every `alias` of a text, as if it were in force everywhere."
  @spec aliases(t()) :: aliases()
  def aliases(%Source{ast: ast}) do
    for {:alias, _meta, [what | options]} <- Macro.prewalker(ast),
        {short, parts} <- aliased(what, List.first(options) || []),
        into: %{},
        do: {short, parts}
  end

  defp aliased({:__aliases__, _meta, parts}, options) do
    case value(options, :as) do
      {:__aliases__, _as, [short]} -> [{short, parts}]
      _none -> [{List.last(parts), parts}]
    end
  end

  defp aliased({{:., _dot, [{:__aliases__, _base, base}, :{}]}, _meta, several}, _options),
    do: for({:__aliases__, _each, parts} <- several, do: {List.last(parts), base ++ parts})

  defp aliased(_unquoted, _options), do: []

  @doc "The parts of a module's whole name; `nil` for what names none."
  @spec module(ast(), aliases()) :: [atom()] | nil
  def module({:__aliases__, _meta, [first | rest]}, aliases),
    do: Map.get(aliases, first, [first]) ++ rest

  def module(_node, _aliases), do: nil

  @doc "Whether a function of that name is called on some module, with what for arguments."
  @spec remote_calls(ast(), atom()) :: [[ast()]]
  def remote_calls(ast, name) do
    for {{:., _, [_module, ^name]}, _, args} <- Macro.prewalker(ast), do: args
  end

  @doc "The functions that have one of these names, private ones too."
  @spec functions(t(), [atom()]) :: [def_node()]
  def functions(%Source{ast: ast}, names) do
    for {kind, meta, [head, [{what, body}]]} = node <- Macro.prewalker(ast),
        kind in [:def, :defp] and meta[:end] != nil and literal(what) == :do,
        {name, args} <- [call(head)],
        name in names,
        do: %{name: name, args: args, body: expressions(body), node: node}
  end

  defp call({:when, _meta, [head, _guard]}), do: call(head)
  defp call({name, _meta, args}) when is_atom(name) and is_list(args), do: {name, args}
  defp call({name, _meta, _no_args}) when is_atom(name), do: {name, []}
  defp call(_unquoted), do: {nil, []}

  @doc "What a `do` block does, one after the other."
  @spec expressions(ast()) :: [ast()]
  def expressions({:__block__, _meta, nodes}) when length(nodes) > 1, do: nodes
  def expressions({:__block__, _meta, [{_form, _m, _args} = node]}), do: [node]
  def expressions({:__block__, _meta, []}), do: []
  def expressions(node), do: [node]

  @doc "The line on which a node begins."
  @spec first_line(ast()) :: pos_integer()
  def first_line(node), do: node |> lines() |> Enum.min()

  @doc "The line on which it ends."
  @spec last_line(ast()) :: pos_integer()
  def last_line(node), do: node |> lines() |> Enum.max()

  defp lines(node) do
    for {_form, meta, args} when is_list(meta) <- Macro.prewalker(node),
        line <- [meta[:line], meta[:closing][:line], meta[:end][:line], heredoc_end(meta, args)],
        line != nil,
        do: line
  end

  defp heredoc_end(meta, [text]) when is_binary(text) do
    if meta[:delimiter] in [~s("""), "'''"],
      do: meta[:line] + length(String.split(text, "\n"))
  end

  defp heredoc_end(_meta, _args), do: nil

  @doc "Whether a node has its lines for itself, but for a comma behind it."
  @spec alone?(t(), ast()) :: boolean()
  def alone?(source, node), do: begins_line?(source, node) and follows(source, node) in ["", ","]

  @doc "Whether nothing stands before a node on its line."
  @spec begins_line?(t(), ast()) :: boolean()
  def begins_line?(source, node) do
    first = first_line(node)
    column = node |> columns(first) |> Enum.min()
    before = source |> line(first) |> String.slice(0, column - 1)
    # A map begins with its brace, to the parsers of some versions.
    String.trim(before) in ["", "%"]
  end

  @doc "Whether a node ends its line with a comma behind it."
  @spec comma?(t(), ast()) :: boolean()
  def comma?(source, node), do: follows(source, node) == ","

  # A tree says where things begin; what ends a line is enough to know here.
  defp follows(source, node) do
    text = source |> line(last_line(node)) |> String.trim_trailing()
    if String.ends_with?(text, ","), do: ",", else: ""
  end

  defp columns(node, line) do
    for {_form, meta, _args} when is_list(meta) <- Macro.prewalker(node),
        meta[:line] == line and meta[:column] != nil,
        do: meta[:column]
  end
end
