defmodule Plausible.Webhooks.Test.SharedTests do
  @moduledoc false
  # Tests that run in several places, such as on each store. A module that uses this one
  # defines them:
  #
  #     shared_test "a webhook is found by its id", context do
  #       ...
  #     end
  #
  # `shared_tests/0` lists them as `{"a webhook is found by its id", function}`. A test
  # module defines a test for each and calls the function with its context.

  defmacro __using__(_options) do
    quote do
      import ExUnit.Assertions
      import Plausible.Webhooks.Test.SharedTests, only: [shared_test: 3]

      Module.register_attribute(__MODULE__, :shared_tests, accumulate: true)
      @before_compile Plausible.Webhooks.Test.SharedTests
    end
  end

  defmacro __before_compile__(env) do
    tests = env.module |> Module.get_attribute(:shared_tests) |> Enum.reverse()
    quote do: def(shared_tests, do: unquote(tests))
  end

  defmacro shared_test(name, context, do: block) do
    function = String.to_atom(name)

    quote do
      @shared_tests {unquote(name), unquote(function)}
      def unquote(function)(unquote(context)) do
        unquote(block)
        :ok
      end
    end
  end
end
