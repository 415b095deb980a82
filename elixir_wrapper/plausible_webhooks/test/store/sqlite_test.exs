defmodule Plausible.Webhooks.Store.SQLiteTest do
  use ExUnit.Case, async: true

  use Plausible.Webhooks.StoreContract,
    store: Plausible.Webhooks.Store.SQLite,
    setup: {__MODULE__, :open}

  alias Plausible.Webhooks.Store.SQLite

  def open(_context) do
    options = options()
    start_supervised!(SQLite.child_spec(options))
    SQLite.init(options)
  end

  defp options do
    folder = Path.join(System.tmp_dir!(), "webhooks_store_#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(folder) end)
    [path: Path.join(folder, "webhooks.db"), name: :"store_#{System.unique_integer([:positive])}"]
  end
end
