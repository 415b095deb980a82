defmodule Plausible.Webhooks.Installer.Step do
  @moduledoc false
  # One change of one file, and the engine that makes it.
  #
  # `places` gets the file and returns what is missing in it: after which line, indented
  # like which line (`nil`: as they are), which lines. An empty list says that everything
  # is there. `unknown!/2` gives up when a place is not recognized.

  alias __MODULE__
  alias Plausible.Webhooks.Installer.Source

  @type place ::
          {behind :: non_neg_integer(), like :: pos_integer() | nil, lines :: [String.t()]}

  @typedoc """
  `path` is relative to Plausible's folder. A `:new` file is made of `lines` when there is
  none. `where` and `lines` are for a change by hand. `note` is shown after the change.
  """
  @type t :: %Step{
          path: Path.t(),
          kind: :elixir | :text | :new,
          where: String.t(),
          lines: [String.t()],
          places: (Source.t() -> [place()]) | nil,
          note: String.t() | nil
        }

  @enforce_keys [:path, :where, :lines]
  defstruct [:path, :where, :lines, :places, :note, kind: :elixir]

  # --- the engine

  @doc "What becomes of a file with the text `old`, `nil` when there is no such file."
  @spec change(t(), String.t() | nil, String.t()) :: Plausible.Webhooks.Installer.change()
  def change(%Step{} = step, old, eol) do
    {result, lines} =
      case edit(step, old, eol) do
        {:unknown, why, lines} -> {{:unknown, why}, lines || step.lines}
        result -> {result, step.lines}
      end

    step |> Map.take([:path, :where, :note]) |> Map.merge(%{result: result, lines: lines})
  end

  defp edit(%{kind: :new, lines: lines}, nil, eol),
    do: {:edit, nil, Enum.map_join(lines, &(&1 <> eol))}

  defp edit(%{kind: :new}, _text, _eol), do: :done
  defp edit(_step, nil, _eol), do: {:unknown, "there is no such file", nil}

  # A second search costs a moment. A place that was mistaken would cost an afternoon.
  defp edit(step, old, _eol) do
    with {source, [_ | _] = places} <- search(step, old),
         new = Source.insert(source, places),
         {:again, {_source, []}} <- {:again, search(step, new)} do
      {:edit, old, new}
    else
      {:again, _missing} -> {:unknown, "the added lines are not recognized afterwards", nil}
      {_source, []} -> :done
      unknown -> unknown
    end
  end

  defp search(step, text) do
    source = source!(step.kind, text)
    {source, step.places.(source)}
  catch
    {:unknown, _why, _lines} = unknown -> unknown
  end

  defp source!(:text, text), do: Source.text(text)

  defp source!(:elixir, text) do
    case Source.elixir(text) do
      {:ok, source} -> source
      :error -> unknown!("it is not valid Elixir")
    end
  end

  # --- for `places`

  @doc "Gives up. `lines` are to be added by hand instead of all of the step's."
  @spec unknown!(String.t()) :: no_return()
  @spec unknown!(String.t(), [String.t()] | nil) :: no_return()
  def unknown!(why, lines \\ nil), do: throw({:unknown, why, lines})

  @doc "The only element of a list."
  @spec one!([element], none :: String.t(), several :: String.t()) :: element
        when element: term()
  def one!([element], _none, _several), do: element
  def one!([], none, _several), do: unknown!(none)
  def one!(_list, _none, several), do: unknown!(several)

  @doc "The place before a node, which has to begin its line."
  @spec before!(Source.t(), Source.ast(), [String.t()], String.t()) :: place()
  def before!(source, node, lines, why) do
    unless Source.begins_line?(source, node), do: unknown!(why)
    line = Source.first_line(node)
    {line - 1, line, lines}
  end

  @doc "The place behind an entry of a list, which has to have lines of its own and a comma."
  @spec behind!(Source.t(), Source.ast(), [String.t()], String.t()) :: place()
  def behind!(source, entry, lines, why) do
    unless Source.begins_line?(source, entry) and Source.comma?(source, entry), do: unknown!(why)
    {Source.last_line(entry), Source.first_line(entry), lines}
  end
end
