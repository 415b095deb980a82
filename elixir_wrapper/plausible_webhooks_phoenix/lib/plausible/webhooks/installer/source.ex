defmodule Plausible.Webhooks.Installer.Source do
  @moduledoc false
  # A text and, for Elixir, its syntax tree. Places are found in the tree and changed in
  # the lines: a text that a formatter prints anew would bury one line of ours under many
  # changes of its own.
  #
  # Literals have no position in a plain syntax tree. Here each one is in a block that has
  # a position, `{:__block__, meta, [literal]}`; `literal/1` takes it out.

  alias __MODULE__

  @enforce_keys [:lines, :eol]
  defstruct [:lines, :eol, :ast]

  @type ast :: Macro.t()
  @typedoc "`eol` is what a line has before its newline: `\\r` or nothing."
  @type t :: %Source{lines: [String.t()], eol: String.t(), ast: ast() | nil}
  @typedoc "A function with `do ... end`. `body` is the list of its expressions."
  @type def_node :: %{name: atom(), args: [ast()], body: [ast()], node: ast()}

  @doc "Any text, without a tree."
  @spec text(String.t()) :: t()
  def text(text) do
    eol = if String.contains?(text, "\r\n"), do: "\r", else: ""
    %Source{lines: String.split(text, "\n"), eol: eol}
  end

  @doc "A text in Elixir."
  @spec elixir(String.t()) :: {:ok, t()} | :error
  def elixir(text) do
    options = [
      columns: true,
      token_metadata: true,
      emit_warnings: false,
      literal_encoder: fn literal, meta -> {:ok, {:__block__, meta, [literal]}} end
    ]

    case Code.string_to_quoted(text, options) do
      {:ok, ast} -> {:ok, %{text(text) | ast: ast}}
      {:error, _where} -> :error
    end
  end

  # --- lines, counted from 1

  @spec line(t(), pos_integer()) :: String.t()
  def line(%Source{lines: lines}, number),
    do: lines |> Enum.at(number - 1, "") |> String.replace_suffix("\r", "")

  @doc "The numbers of the lines that match."
  @spec matching(t(), Regex.t()) :: [pos_integer()]
  def matching(source, regex),
    do: for(n <- 1..length(source.lines), line(source, n) =~ regex, do: n)

  @doc "The text with lines inserted; see `t:Plausible.Webhooks.Installer.Step.place/0`."
  @spec insert(t(), [Plausible.Webhooks.Installer.Step.place()]) :: String.t()
  def insert(%Source{} = source, places) do
    places
    |> Enum.sort(:desc)
    |> Enum.reduce(source.lines, fn {behind, like, lines}, all ->
      {before, rest} = Enum.split(all, behind)
      before ++ Enum.map(indented(source, like, lines), &(&1 <> source.eol)) ++ rest
    end)
    |> Enum.join("\n")
  end

  defp indented(_source, nil, lines), do: lines

  defp indented(source, like, lines) do
    [space] = Regex.run(~r/^\s*/, line(source, like))
    for line <- lines, do: if(line == "", do: "", else: space <> line)
  end

  # --- the tree

  @doc "Every node for which `fun` is true, in the order of the text."
  @spec find(ast(), (ast() -> boolean())) :: [ast()]
  def find(ast, fun), do: ast |> Macro.prewalker() |> Enum.filter(fun)

  @spec any?(ast(), (ast() -> boolean())) :: boolean()
  def any?(ast, fun), do: ast |> Macro.prewalker() |> Enum.any?(fun)

  @doc "The literal of a node, `nil` for any other node."
  @spec literal(ast()) :: term()
  def literal({:__block__, _meta, [literal]}) when not is_tuple(literal), do: literal
  def literal(_node), do: nil

  @doc "The two sides of a pair that is written as a tuple."
  @spec pair(ast()) :: {ast(), ast()} | nil
  def pair({:__block__, _meta, [{left, right}]}), do: {left, right}
  def pair(_node), do: nil

  @doc "The name of a variable, `nil` for any other node."
  @spec variable(ast()) :: atom() | nil
  def variable({name, _meta, context}) when is_atom(name) and is_atom(context), do: name
  def variable(_node), do: nil

  @doc "The variables that a list of expressions binds."
  @spec bound([ast()]) :: [atom()]
  def bound(expressions),
    do: for({:=, _meta, [left, _right]} <- expressions, name = variable(left), do: name)

  @doc "The value of a key in the pairs of a keyword list or a map."
  @spec value([{ast(), ast()}], atom()) :: ast() | nil
  def value(pairs, key) do
    Enum.find_value(pairs, fn
      {left, right} -> if literal(left) == key, do: right
      _no_pair -> nil
    end)
  end

  @doc "Whether a node names the module, in full or by an `alias` anywhere in the text."
  @spec module?(t(), ast(), [atom()]) :: boolean()
  def module?(source, {:__aliases__, _meta, [first | rest]}, parts),
    do: Map.get(aliases(source), first, [first]) ++ rest == parts

  def module?(_source, _node, _parts), do: false

  defp aliases(%Source{ast: ast}) do
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

  @doc "The arguments of each call of a function of that name in any module."
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

  @doc "The expressions of a `do` block."
  @spec expressions(ast()) :: [ast()]
  def expressions({:__block__, _meta, nodes}) when length(nodes) > 1, do: nodes
  def expressions({:__block__, _meta, [{_form, _m, _args} = node]}), do: [node]
  def expressions({:__block__, _meta, []}), do: []
  def expressions(node), do: [node]

  # --- where nodes are

  @spec first_line(ast()) :: pos_integer()
  def first_line(node), do: node |> lines() |> Enum.min()

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

  @doc "Whether nothing is before a node on its line."
  @spec begins_line?(t(), ast()) :: boolean()
  def begins_line?(source, node) do
    first = first_line(node)

    columns =
      for {_form, meta, _args} when is_list(meta) <- Macro.prewalker(node),
          meta[:line] == first and meta[:column] != nil,
          do: meta[:column]

    before = source |> line(first) |> String.slice(0, Enum.min(columns) - 1)
    # The parsers of some versions place a map at its brace.
    String.trim(before) in ["", "%"]
  end

  @doc "Whether a comma ends the last line of a node."
  @spec comma?(t(), ast()) :: boolean()
  def comma?(source, node),
    do: source |> line(last_line(node)) |> String.trim_trailing() |> String.ends_with?(",")
end
