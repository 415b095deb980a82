defmodule Plausible.Webhooks.ScenariosTest do
  # The named scenarios on the embedded store, and the table of docs/requirements.md.
  use ExUnit.Case, async: true

  use Plausible.Webhooks.Scenarios,
    host: {Plausible.Webhooks.Scenarios.SmallHost, &Plausible.Webhooks.Test.SQLiteCase.store/1},
    async: true

  alias Plausible.Webhooks.Scenarios

  @root Path.expand("../../..", __DIR__)
  @page "elixir_wrapper/plausible_webhooks_phoenix/test/live/scenarios_test.exs"
  @ids ~w(US1.1 US1.2 US1.3 US2.1 US2.2 US2.3 US3.1 US3.2 US3.3 US4.1 US4.2 US5.1) ++
         for(n <- 1..6, do: "Edge #{n}") ++
         for(n <- 1..14, do: "FR-#{String.pad_leading("#{n}", 3, "0")}") ++
         for(n <- 1..6, do: "SC-00#{n}")

  test "docs/requirements.md lists the scenarios that exist, and every one of them" do
    rows =
      for [_line | row] <-
            Regex.scan(~r/^\| (\S.*?) \| (.*?) \| `(.*?)` \|$/m, read("docs/requirements.md")),
          do: row

    shared =
      for module <- Scenarios.parts(), {name, _function} <- module.shared_tests() do
        [id, text] = split(name)
        file = module |> Module.split() |> List.last() |> Macro.underscore()
        [id, text, "scenarios/#{file}.ex"]
      end

    page =
      for [_all, name] <- Regex.scan(~r/^ +test "(.*?)"/m, read(@page)) do
        [id, text] = split(name)
        [id, text, "live/scenarios_test.exs"]
      end

    assert Enum.sort(rows) == Enum.sort(shared ++ page)
    assert shared |> Enum.map(&hd/1) |> Enum.sort() == Enum.sort(@ids)
    assert Enum.map(page, &hd/1) == ~w(US3.1 US3.2 US3.3 US4.1 US4.2)
  end

  defp read(path), do: File.read!(Path.join(@root, path))

  defp split(name) do
    [_all, id, text] = Regex.run(~r/^(Edge \d|\S+) (.*)$/, name)
    [id, text]
  end
end
