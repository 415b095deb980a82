defmodule Plausible.Webhooks.Faults do
  @moduledoc false
  # Every kind of hostile peer that the suite knows, against the engine and against a whole
  # instance. `script/test --faults` prints the table.

  alias Plausible.Webhooks.Faults.{EngineRun, Peers, ProductRun, Rows}
  alias Plausible.Webhooks.Test.HttpReceiver

  def rows do
    rows = Rows.Http.rows() ++ Rows.Connections.rows() ++ Rows.Tls.rows() ++ Rows.Dns.rows()
    kinds = Enum.map(rows, & &1.kind)
    [] = kinds -- Enum.uniq(kinds)
    rows
  end

  @doc "Runs the rows, with `dir` for files. The peers end with the calling process."
  def run(rows, dir) do
    peers = Peers.start(rows, dir)
    receiver = HttpReceiver.start!()

    %{
      engine: EngineRun.run(rows, peers, receiver),
      product: ProductRun.run(rows, peers, receiver, dir)
    }
  end
end
