defmodule Plausible.Webhooks.Store.SQLite.Native do
  @moduledoc false
  # Stubs of the NIF over libsqlite3, nothing else. The library is built only where
  # SQLite is found: a host that keeps deliveries elsewhere needs no SQLite.
  #
  # A connection belongs to one process: the death of that process interrupts the
  # running statement, and every further call returns `{:error, :closed}`. A wrong
  # type raises ArgumentError; errors of SQLite are `{:error, {code, text}}` with the
  # primary result code, https://www.sqlite.org/rescode.html.

  alias Plausible.Webhooks.Runtime.NativeLibrary

  @compile {:autoload, false}
  @on_load :load
  @abi 1

  @type connection :: reference()
  @type error :: {:error, {pos_integer(), String.t()} | :busy | :closed | :system_limit}
  @typedoc "A binary is bound as text, `{:blob, binary}` as a blob."
  @type param :: integer() | binary() | {:blob, binary()} | nil
  @typedoc "Text and blobs are binaries; NULL, and an infinite number, is `nil`."
  @type value :: integer() | float() | binary() | nil

  @doc false
  def load do
    path = NativeLibrary.path("plausible_webhooks_sqlite")
    NativeLibrary.loaded(__MODULE__, path, :erlang.load_nif(path, @abi))
  end

  defp missing, do: :erlang.nif_error(NativeLibrary.exception(__MODULE__))

  @doc """
  Opens an existing file (an empty one is a new database). The caller is the
  owner. Nothing is read yet: what is no database shows at the first statement.
  """
  @spec open(Path.t()) :: {:ok, connection()} | error()
  def open(_path), do: missing()

  @doc """
  Runs one statement, with as many parameters as it has, at most 64. Statements
  are kept prepared by their text (64 KiB at most). `:busy`: another process is
  inside.
  """
  @spec execute(connection(), String.t(), [param()]) :: {:ok, [tuple()]} | error()
  def execute(_connection, _sql, _params), do: missing()

  @doc """
  Closes the file; twice is once. A connection that is collected without it is
  closed too, but leaves the write-ahead log to the next one.
  """
  @spec close(connection()) :: :ok | error()
  def close(_connection), do: missing()
end
