defmodule Plausible.Webhooks.Test.Crash.Report do
  @moduledoc false
  # What a mode has come to, in one line.

  @doc """
  `faults`: what was done how often; `counts`: of `Crash.Audit.check_all!/1`; `times`:
  what took how long, a list of milliseconds each.
  """
  @spec line(String.t(), %{String.t() => non_neg_integer()}, map(), [{String.t(), [integer()]}]) ::
          :ok
  def line(mode, faults, counts, times) do
    faults = Enum.map_join(faults, ", ", fn {what, n} -> "#{n} #{what}" end)
    ended = for state <- [:failed, :cancelled], counts[state] > 0, do: "#{counts[state]} #{state}"
    ended = Enum.join(["#{counts.delivered} delivered" | ended], " + ")
    times = for {what, ms} <- times, ms != [], do: "; #{what} #{spread(ms)}"

    IO.puts(
      "\n#{mode}: #{faults}; #{counts.accepted} accepted = #{ended}, 0 lost, " <>
        "#{counts.duplicates} duplicates#{times}"
    )
  end

  defp spread(ms) do
    sorted = Enum.sort(ms)
    "#{seconds(Enum.at(sorted, div(length(ms), 2)))} (at most #{seconds(List.last(sorted))}) s"
  end

  defp seconds(ms), do: :erlang.float_to_binary(ms / 1_000, decimals: 1)
end
