defmodule Plausible.Webhooks.FaultsTest do
  # Alone: it measures slices and memory.
  use ExUnit.Case, async: false

  alias Plausible.Webhooks.Faults
  alias Plausible.Webhooks.Faults.Table

  @moduletag :tmp_dir
  @moduletag :capture_log
  @moduletag timeout: 300_000

  test "every hostile peer is named, bounded, and of no harm to others", %{tmp_dir: dir} do
    rows = Faults.rows()
    results = Faults.run(rows, dir)

    short =
      for row <- rows, short = Table.shortfalls(row, results), short != [], do: {row.kind, short}

    assert short == []
    assert results.product.all.short == []
    assert length(rows) > 300
  end
end
