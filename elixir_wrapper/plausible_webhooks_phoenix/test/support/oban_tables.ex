defmodule Plausible.Webhooks.Test.ObanTables do
  @moduledoc false
  # Oban's own tables, in a schema.
  use Ecto.Migration

  alias Plausible.Webhooks.Test.Repo

  def up, do: Oban.Migrations.up(prefix: prefix(), create_schema: false)
  def down, do: Oban.Migrations.down(prefix: prefix())

  @doc "Makes them; the schema is there."
  def make!(prefix) do
    :ok = Ecto.Migrator.up(Repo, 2, __MODULE__, prefix: prefix, log: false)
  end
end
