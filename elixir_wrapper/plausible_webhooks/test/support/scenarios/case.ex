defmodule Plausible.Webhooks.Scenarios.Case do
  @moduledoc false
  # A test module in a host: `use Plausible.Webhooks.Scenarios.Case, host: {Host, argument}`.
  # Other options are those of ExUnit.Case. When the tests of a module are over, the npm
  # package standardwebhooks verifies every POST that they looked at.

  import ExUnit.Callbacks, only: [on_exit: 1, start_supervised!: 1]

  alias Plausible.Webhooks.Scenarios.World
  alias Plausible.Webhooks.Test.HttpReceiver

  defmacro __using__(options) do
    {host, options} = Keyword.pop!(options, :host)

    quote do
      use ExUnit.Case, unquote(options)
      use Plausible.Webhooks.Scenarios.World

      @moduletag :tmp_dir
      @moduletag :capture_log

      setup_all do
        Plausible.Webhooks.Scenarios.Case.collect_posts!()
      end

      setup context do
        Plausible.Webhooks.Scenarios.Case.start!(context, unquote(host))
      end
    end
  end

  def collect_posts! do
    {:ok, posts} = Agent.start(fn -> %{} end)

    on_exit(fn ->
      messages = Agent.get(posts, &Map.values/1)
      Agent.stop(posts)
      World.verify!(messages)
    end)

    %{posts: posts}
  end

  def start!(context, {host, argument}) do
    receiver = HttpReceiver.of(start_supervised!({HttpReceiver, []}))
    Map.merge(%{host: host, receiver: receiver}, host.start!(context, argument))
  end
end
