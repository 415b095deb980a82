defmodule Plausible.Webhooks.Testing do
  @moduledoc """
  Helps a host to test that its code causes webhooks, with ExUnit.

  Start no instance for the whole suite: its processes share no database sandbox. A test that
  is about webhooks starts one of its own. It has the whole way of an event in it (the hook,
  an embedded store, the engine, a signed POST to a receiver on loopback), and needs no
  network and no database:

      defmodule MyApp.SignupTest do
        use ExUnit.Case

        import Plausible.Webhooks.Testing

        setup do
          webhooks = start_webhooks!(host: {MyApp.WebhooksHost, []})
          subscribe!(webhooks, site_id, ["goal.completed"])
          :ok
        end

        test "a sign-up is sent" do
          MyApp.sign_up("ada@example.com")
          assert %{"data" => %{"goal" => %{"name" => "Signup"}}} = assert_delivered("goal.completed")
        end

        test "a page view is not" do
          MyApp.visit("/")
          refute_delivered("goal.completed")
        end
      end

  The instance has the default name `Plausible.Webhooks`, as in production, so such tests are
  not `async`. With `:name` in the options they can be, if the code under test takes a name.

  In Plausible webhooks are off under `MIX_ENV=test`. Its hooks do nothing until a test starts
  an instance, with `Plausible.Webhooks.Host.Plausible` as the host.
  """

  alias Plausible.Webhooks
  alias Plausible.Webhooks.{Local, Native}

  # It is there when this module is used.
  @compile {:no_warn_undefined, [ExUnit.Callbacks, ExUnit.Assertions]}

  @typedoc "A running instance and its receiver."
  @type t :: %{instance: atom(), url: String.t(), secret: String.t()}

  @doc """
  Starts an instance and a receiver until the test ends. `:host` is required. Every other
  option of `Plausible.Webhooks.Options` overrides what suits a test: a new database, no
  evaluation of traffic, retries after 10 ms, loopback allowed.
  """
  @spec start_webhooks!(keyword()) :: t()
  def start_webhooks!(options) do
    test = self()
    {:ok, secret} = Native.generate_secret()
    receive_it = &received(&1, test)
    start = {Local.Receiver, :start_link, [[secret: secret, answer: receive_it]]}
    receiver = ExUnit.Callbacks.start_supervised!(%{id: make_ref(), start: start})

    folder = Path.join(System.tmp_dir!(), "webhooks-#{System.pid()}-#{System.unique_integer()}")
    options = Keyword.merge(defaults(folder), options)
    # Before the instance, so that it runs after the instance has stopped.
    ExUnit.Callbacks.on_exit(fn -> File.rm_rf!(folder) end)
    ExUnit.Callbacks.start_supervised!({Webhooks, options})

    %{
      instance: options[:name] || Webhooks,
      url: "http://127.0.0.1:#{Local.Http.port(receiver)}/",
      secret: secret
    }
  end

  defp defaults(folder) do
    [
      store: {Webhooks.Store.SQLite, path: Path.join(folder, "webhooks.db")},
      vault: [:crypto.strong_rand_bytes(32)],
      policy: %{https_only: false, allow: ["127.0.0.0/8:*"]},
      retry_delays_ms: [10, 10, 10],
      traffic: false
    ]
  end

  # A forged or broken signature is a failure of the test, and not a delivery.
  defp received(%{refused: nil} = request, test) do
    {:ok, body} = Native.decode(request.body)
    send(test, {__MODULE__, body["type"], body})
    {200, [], ""}
  end

  defp received(_request, _test), do: {401, [], ""}

  @doc """
  Creates a webhook of the site that gets these event types at the receiver, as the actor
  `:system`. `attributes` are further ones of `Plausible.Webhooks.Webhook.new/3`.
  """
  @spec subscribe!(t(), integer(), [String.t()], map()) :: Webhooks.Webhook.t()
  def subscribe!(webhooks, site_id, events, attributes \\ %{}) do
    ours = %{url: webhooks.url, secret: webhooks.secret, events: events}

    case Webhooks.create_webhook(webhooks.instance, :system, site_id, Map.merge(ours, attributes)) do
      {:ok, webhook} -> webhook
      {:error, error} -> raise error
    end
  end

  @doc "The body of the next delivery of this type. Fails if none arrives in time."
  @spec assert_delivered(String.t(), timeout()) :: map()
  def assert_delivered(type, timeout_ms \\ 5_000) do
    receive do
      {__MODULE__, ^type, body} -> body
    after
      timeout_ms ->
        ExUnit.Assertions.flunk("no #{type} was delivered within #{timeout_ms} ms")
    end
  end

  @doc "Fails if a delivery of this type has arrived or arrives within this time."
  @spec refute_delivered(String.t(), timeout()) :: :ok
  def refute_delivered(type, timeout_ms \\ 200) do
    receive do
      {__MODULE__, ^type, body} ->
        ExUnit.Assertions.flunk("a #{type} was delivered: #{inspect(body)}")
    after
      timeout_ms -> :ok
    end
  end
end
