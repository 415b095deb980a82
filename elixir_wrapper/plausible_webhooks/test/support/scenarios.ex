defmodule Plausible.Webhooks.Scenarios do
  @moduledoc """
  The named scenarios of the specification, as tests. Each one begins with a visitor's
  event or a call of a user, in a host, and ends with a POST at an HTTP receiver or with
  what the log says.

      defmodule OnSQLiteTest do
        use Plausible.Webhooks.Scenarios, host: {SmallHost, &__MODULE__.store/1}, async: true
      end

  The host is a `Plausible.Webhooks.Scenarios.Host` with the argument for its `start!/2`.

  Another Mix project compiles this by adding this file and the folder of the same name
  to its `elixirc_paths`.
  """

  @parts ~w(UserStories EdgeCases Requirements SuccessCriteria)a

  @doc "The modules whose `shared_tests/0` are the scenarios."
  def parts, do: Enum.map(@parts, &Module.concat(__MODULE__, &1))

  @doc "The options of an instance that the scenarios need."
  def options,
    do: [
      retry_delays_ms: [200, 600, 1_800],
      jitter_percent: 0,
      # The scenarios evaluate the traffic themselves.
      traffic: [tick_ms: :infinity]
    ]

  # A module for each part, because ExUnit runs modules at the same time.
  defmacro __using__(options) do
    for part <- @parts do
      quote do
        defmodule Module.concat(__MODULE__, unquote(part)) do
          use Plausible.Webhooks.Scenarios.Case, unquote(options)

          @scenarios Module.concat(Plausible.Webhooks.Scenarios, unquote(part))

          for {name, function} <- @scenarios.shared_tests() do
            @scenario function
            test(name, context, do: apply(@scenarios, @scenario, [context]))
          end
        end
      end
    end
  end
end
