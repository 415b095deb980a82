defmodule Plausible.Webhooks.LayersTest do
  # The arrows between the parts of this project point one way.
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  @moduletag timeout: 300_000

  # Each part by the beginning of its files, and the other parts that it may use.
  @parts [
    page: {"lib/plausible_web/", [:updates]},
    installer: {"lib/plausible/webhooks/installer", [:migrations]},
    task: {"lib/mix/", [:installer]},
    host: {"lib/plausible/webhooks/host/", [:store, :cluster, :telemetry, :updates, :page]},
    store: {"lib/plausible/webhooks/store/", [:migrations]},
    migrations: {"lib/plausible/webhooks/migrations", []},
    cluster: {"lib/plausible/webhooks/cluster/", []},
    telemetry: {"lib/plausible/webhooks/telemetry.ex", []},
    prom_ex: {"lib/plausible/webhooks/prom_ex.ex", [:telemetry]},
    updates: {"lib/plausible/webhooks/updates.ex", []}
  ]

  defp xref(format) do
    capture_io(fn -> Mix.Task.rerun("xref", ["graph", "--format", format]) end)
  end

  defp part(file) do
    Enum.find_value(@parts, fn {name, {beginning, _uses}} ->
      String.starts_with?(file, beginning) && name
    end)
  end

  test "there are no cycles" do
    assert xref("cycles") =~ "No cycles found"
  end

  test "each part uses only the parts below it" do
    {arrows, _file} =
      xref("plain")
      |> String.split("\n", trim: true)
      |> Enum.flat_map_reduce(nil, fn line, file ->
        case Regex.run(~r/^[|`├└─ -]+(\S+)/u, line) do
          [_all, used] -> {[{file, used}], file}
          nil -> {[], line}
        end
      end)

    # The graph also has files of the tests and of the examples.
    arrows = for {"lib/" <> _ = file, "lib/" <> _ = used} <- arrows, do: {file, used}
    assert length(arrows) > 100

    for {file, used} <- arrows, part(file) != part(used) do
      assert part(file), "#{file} belongs to no part"
      {_beginning, uses} = @parts[part(file)]
      assert part(used) in uses, "#{file} uses #{used}"
    end
  end
end
