defmodule Plausible.Webhooks.StoreEctoDatabaseTest do
  use Plausible.Webhooks.Test.StoreCase, async: true

  alias Plausible.Webhooks.Store.Ecto.Database

  test "errors say whether what was to be written is to blame" do
    store = open!()
    query = &Database.query(store, nil, &1, [])

    assert query.("SELECT 1 / 0") == {:error, {:postgres, :division_by_zero}}

    assert {:error, {:postgres, :check_violation, _constraint}} =
             query.("INSERT INTO PREFIX.webhook_vault_checks VALUES (2, '')")

    assert query.("SELECT 1 FROM PREFIX.not_there") == {:error, {:away, :undefined_table}}

    for code <- ~w(22003 22021 23502 54000), do: assert({:postgres, _} = raised(store, code))

    for code <- ~w(40001 42501 53200 55P03 57014 58030 XX000),
        do: assert({:away, _} = raised(store, code))

    for code <- ~w(57P01 08006), do: assert(raised(store, code) == :connection_lost)
    assert raised(store, "53100") == :disk_full
    assert raised(store, "25006") == :read_only
  end

  defp raised(store, code) do
    sql = "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '#{code}'; END $$"
    {:error, reason} = Database.query(store, nil, sql, [])
    reason
  end
end
