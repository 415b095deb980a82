defmodule Plausible.Webhooks.Store.SQLite.Native do
  @moduledoc false
  # The stubs of the NIF over libsqlite3. Its library is built where SQLite is found: a
  # host that keeps deliveries elsewhere needs none.
  #
  # A connection belongs to the process that opened it. That process's death interrupts
  # the running statement, and every later call returns `{:error, :closed}`. A wrong type
  # raises ArgumentError. SQLite's errors are `{:error, {code, text}}` with the primary
  # result code, https://www.sqlite.org/rescode.html.

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
  Opens an existing file; an empty one becomes a new database. The file is not read: if
  it is not a database, the first statement fails.
  """
  @spec open(Path.t()) :: {:ok, connection()} | error()
  def open(_path), do: missing()

  @doc """
  Runs one statement, with as many parameters as it has, at most 64. Statements are kept
  prepared by their text, of at most 64 KiB. `:busy`: another call uses the connection.
  """
  @spec execute(connection(), String.t(), [param()]) :: {:ok, [tuple()]} | error()
  def execute(_connection, _sql, _params), do: missing()

  @doc """
  Closes the file. A second call does nothing. A connection that is garbage collected
  is closed too, but leaves its write-ahead log to the next one.
  """
  @spec close(connection()) :: :ok | error()
  def close(_connection), do: missing()
end
