defmodule Plausible.Webhooks.Installer.Step do
  @moduledoc false
  # One change of one file: where it goes, what is added, and how the place is found.

  alias __MODULE__
  alias Plausible.Webhooks.Installer.Source

  @typedoc """
  `:done`: it is there already; `{:ok, source}`: with the change; `{:unknown, why}`:
  the place was not found, `why` says what was looked for. With `lines` it is these
  that are to be added by hand, and not all of the step's.
  """
  @type outcome ::
          :done
          | {:ok, Source.t()}
          | {:unknown, why :: String.t()}
          | {:unknown, why :: String.t(), lines :: [String.t()]}

  @typedoc """
  `path` is relative to Plausible's folder. `edit` gets the text, `nil` when there is
  no such file. `where` and `lines` are for who does it by hand. `note` is said when
  the change is made.
  """
  @type t :: %Step{
          path: Path.t(),
          where: String.t(),
          lines: [String.t()],
          edit: (String.t() | nil -> outcome()),
          note: String.t() | nil
        }

  @enforce_keys [:path, :where, :lines, :edit]
  defstruct [:path, :where, :lines, :edit, :note]

  @missing {:unknown, "there is no such file"}

  @doc "An edit of a file of Elixir that is there."
  @spec elixir((Source.t() -> outcome())) :: (String.t() | nil -> outcome())
  def elixir(fun) do
    fn
      nil ->
        @missing

      text ->
        case Source.elixir(text) do
          {:ok, source} -> fun.(source)
          {:error, why} -> {:unknown, why}
        end
    end
  end

  @doc "An edit of any other file that is there."
  @spec text((Source.t() -> outcome())) :: (String.t() | nil -> outcome())
  def text(fun) do
    fn
      nil -> @missing
      text -> text |> Source.text() |> fun.()
    end
  end

  @doc "A file that is made when it is not there; `eol` is what ends its lines."
  @spec new([String.t()], eol :: String.t()) :: (String.t() | nil -> outcome())
  def new(lines, eol) do
    fn
      nil -> {:ok, lines |> Enum.map_join(&(&1 <> eol)) |> Source.text()}
      _text -> :done
    end
  end
end
