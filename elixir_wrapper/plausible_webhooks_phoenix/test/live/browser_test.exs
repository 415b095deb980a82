defmodule PlausibleWeb.Live.WebhookSettings.BrowserTest do
  # The settings page in a real browser; see test/browser/run. Where there is no browser the
  # test is skipped, and a line says so.
  use Plausible.Webhooks.Test.PageCase, async: true

  @run Path.expand("../../../../test/browser/run", __DIR__)

  # A host's plug before the endpoint: the page of this test's instance.
  defmodule Served do
    @moduledoc false
    @behaviour Plug

    @impl true
    def init(page), do: page

    @impl true
    def call(conn, page) do
      page = Map.put(page, :base_url, "http://127.0.0.1:#{conn.port}")
      conn |> Plug.Conn.put_private(:demo_page, page) |> Demo.Web.Endpoint.call([])
    end
  end

  @browsers String.split(
              System.get_env("WEBHOOKS_CHROMIUM", "chromium chromium-browser google-chrome")
            )
  @missing for {name, commands} <- [
                 {"Chromium", @browsers},
                 {"Node.js", ["node"]},
                 {"npm", ["npm"]}
               ],
               not Enum.any?(commands, &System.find_executable/1),
               do: name

  if @missing != [] do
    IO.puts("skipped: the settings page in a browser, without #{Enum.join(@missing, ", ")}")
    @tag skip: "without #{Enum.join(@missing, ", ")}"
  end

  # On a busy machine the browser alone takes minutes.
  @tag timeout: 900_000
  test "is used by mouse and keyboard, light, dark and narrow", context do
    goals = for id <- 1..120, do: TestHost.event_goal(id, "Goal #{id}")
    TestHost.put(context.host, {:goals, 1}, [TestHost.event_goal(200, "<b>A\u202Eb</b>") | goals])
    TestHost.put(context.host, :visitors, {:ok, [41, 2_210]})
    context = start_page!(context, retry_delays_ms: [], tests_per_minute: 1_000)
    receiver = context.receiver
    HttpReceiver.script(receiver, "/ok", [{200, [{"content-type", "text/plain"}], "thank you"}])
    HttpReceiver.script(receiver, "/missing", [{404, [], "<h1>not here</h1>"}])
    HttpReceiver.script(receiver, "/gone", [410, 200])
    HttpReceiver.script(receiver, "/flaky", [500, 503, 500, 200])

    actors = %{"owner" => :owner}
    page = %{instance: context.name, pubsub: Demo.PubSub, actors: actors}

    server =
      start_supervised!(
        {Bandit, plug: {Served, page}, ip: :loopback, port: 0, startup_log: false}
      )

    {:ok, {_ip, port}} = ThousandIsland.listener_info(server)

    # Three that failed are there from the moment at which there is a webhook.
    flaky = Task.async(fn -> flaky(context) end)

    arguments = [
      "settings.mjs",
      "http://127.0.0.1:#{port}/sites/1/webhooks",
      HttpReceiver.url(receiver, "")
    ]

    {output, status} = System.cmd(@run, arguments, stderr_to_stdout: true)

    case status do
      77 -> IO.puts(output)
      0 -> assert HttpReceiver.count(receiver, "/flaky") == 6
      _failed -> flunk(output)
    end

    Task.shutdown(flaky)
  end

  # Once the owner has added another one, so that the empty page is seen first.
  defp flaky(context) do
    eventually(
      fn -> match?({:ok, [%{name: "CRM"} | _]}, API.list_webhooks(context.name, :owner, 1)) end,
      300_000
    )

    webhook = webhook!(context, "/flaky", %{name: "Flaky"})

    for _ <- 1..3 do
      delivery = delivery(webhook)
      Outbox.push(context.instance, [delivery])

      eventually(fn ->
        match?({:ok, %{state: :failed}}, API.delivery(context.name, :owner, 1, delivery.id))
      end)
    end
  end
end
