defmodule Plausible.Webhooks.Faults.Elsewhere do
  @moduledoc false
  # Peers in VMs of their own. Attackers bring machines of their own, but here they share the
  # cores with what is measured: so they run in a VM of the lowest weight, and good receivers
  # in another one of full weight.

  alias Plausible.Webhooks.Faults
  alias Plausible.Webhooks.Faults.{Peers, Wire}
  alias Plausible.Webhooks.Test.OtherVm

  @ok "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

  @doc "`%{urls: %{kind => url}, options: options, receivers: vm}`; see `Peers.start/2`."
  def start(rows, dir) do
    kinds = Enum.map(rows, & &1.kind)
    attackers = OtherVm.start!(nice: 19)
    {urls, options} = OtherVm.serve(attackers, __MODULE__, :serve_hostile, [kinds, dir])
    %{urls: urls, options: options, attackers: attackers, receivers: OtherVm.start!()}
  end

  @doc "The URL of a new server at 127.0.1.`n` that answers every request with 200."
  def good(vm, n), do: script(vm, n, [:request, {:send, @ok}, :again])

  @doc "The same with a script, which must hold no function."
  def script(vm, n, script), do: OtherVm.serve(vm, __MODULE__, :serve_script, [n, script])

  @doc """
  The URL of a new server that plays the script of the path: those of the rows that answer
  requests (`path/1`), and a good one at `good`. The hostile scripts run in processes of low
  priority.
  """
  def shared(vm, rows),
    do: OtherVm.serve(vm, __MODULE__, :serve_shared, [Enum.map(rows, & &1.kind)])

  def answering(rows) do
    for %{peer: {:http, [first | _rest] = script}} = row <- rows,
        first in [:request, :head] or (is_tuple(first) and elem(first, 0) == :request),
        do: {row, script}
  end

  def path(row), do: "k#{:erlang.phash2(row.kind)}"

  # --- in the other VMs

  def serve_hostile(kinds, dir) do
    peers = Peers.start(rows(kinds), dir)
    {Map.new(peers.peers, fn {kind, peer} -> {kind, peer.url} end), peers.options}
  end

  def serve_script(n, script) do
    play = &Wire.play(:gen_tcp, &1, &1, script, &2)
    Peers.serve("http", Wire.counts(), play, {127, 0, 1, n}).url
  end

  def serve_shared(kinds) do
    scripts =
      for {row, script} <- answering(rows(kinds)),
          into: %{},
          do: {path(row), [{:priority, :low} | script]}

    scripts = Map.put(scripts, "good", [{:priority, :normal}, :request, {:send, @ok}, :again])

    Peers.serve("http", Wire.counts(), &Wire.dispatch(&1, scripts, &2)).url
  end

  # Rows hold functions, so their names travel.
  defp rows(kinds), do: Enum.filter(Faults.rows(), &(&1.kind in kinds))
end
