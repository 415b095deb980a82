defmodule Plausible.Webhooks.Migrations.Index do
  @moduledoc false
  # Creates an index, concurrently if the migration asks for it.

  use Ecto.Migration

  @spec create(Plausible.Webhooks.Migrations.options(), String.t(), String.t()) :: :ok
  def create(options, name, definition) do
    how = if options.concurrently, do: "CONCURRENTLY ", else: ""

    # An interrupted one leaves an index behind that is maintained and never used. A
    # migration outside of a transaction is simply run again.
    if options.concurrently, do: execute("DROP INDEX #{how}IF EXISTS #{options.prefix}.#{name}")
    execute("CREATE INDEX #{how}#{name} ON #{options.prefix}.#{definition}")
  end
end
