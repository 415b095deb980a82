defmodule Plausible.Webhooks.Scenarios do
  @moduledoc """
  The named scenarios of the specification, as tests. Each one begins with a visitor's
  event or a call of a user, in the small host of `examples/host`, and ends with a POST
  at an HTTP receiver or with what the log says.

      defmodule UserStoriesTest do
        use ExUnit.Case, async: true

        use Plausible.Webhooks.Scenarios,
          of: Plausible.Webhooks.Scenarios.UserStories,
          store: {__MODULE__, :store}

        def store(context), do: {Plausible.Webhooks.Store.SQLite, path: ...}
      end

  `store` names a function that gets the test's context and returns the `:store` option
  of the instance. When the tests of a module are over, the npm package standardwebhooks
  verifies every POST that they looked at.

  Another Mix project compiles this by adding this file and the folder of the same name
  to its `elixirc_paths`.
  """

  alias Plausible.Webhooks.Scenarios.World

  defmacro __using__(options) do
    quote bind_quoted: [options: options] do
      @scenarios Keyword.fetch!(options, :of)
      @scenarios_store Keyword.fetch!(options, :store)

      @moduletag :tmp_dir
      @moduletag :capture_log

      setup_all do
        posts = World.collect_posts!()
        on_exit(fn -> World.verify_posts!(posts) end)
        %{posts: posts}
      end

      setup context do
        {module, function} = @scenarios_store
        World.start!(context, apply(module, function, [context]), @scenarios.options())
      end

      for {name, function} <- @scenarios.all() do
        @scenario function
        test(name, context) do
          apply(@scenarios, @scenario, [context])
        end
      end
    end
  end
end
