defmodule PlausibleWeb.Live.WebhookSettings.MountTest do
  use Plausible.Webhooks.Test.PageCase, async: true

  import Phoenix.ConnTest, only: [build_conn: 0]

  alias PlausibleWeb.Live.WebhookSettings.NotFound

  defmodule Nobody do
    def actor(_session, _socket), do: :error
  end

  defmodule NoAuth do
    def actor, do: {:ok, :owner}
  end

  test "whoever may manage sees the site's webhooks with the first answer", context do
    context = start_page!(context)
    webhook!(context, "/hook", %{name: "CRM"})
    html = context |> first_answer() |> Phoenix.ConnTest.html_response(200)
    assert html =~ "CRM"
    assert page!(context) |> render() =~ "CRM"
  end

  test "nobody else finds anything", context do
    context = start_page!(context)
    webhook!(context, "/hook", %{name: "CRM"})

    for given <- [
          %{"actor" => "viewer"},
          %{"actor" => "other"},
          %{"actor" => "nobody"},
          %{"actor" => "owner", "site_id" => 3},
          %{"actor" => "viewer", "site_id" => 2},
          %{"site_id" => "1"},
          %{"site_id" => nil},
          %{"auth" => inspect(Nobody)},
          %{"auth" => inspect(NoAuth)},
          %{"auth" => "No.Such.Module"},
          %{"auth" => "Elixir.Plausible.Webhooks"},
          %{"auth" => ":lists"},
          %{"auth" => nil},
          %{"instance" => "No.Such.Instance"},
          %{"instance" => 7}
        ] do
      assert_raise NotFound, fn -> first_answer(context, given) end
    end

    assert Plug.Exception.status(%NotFound{}) == 404
  end

  test "it is asked again when it connects", context do
    context = start_page!(context)
    first = self()
    TestHost.put(context.host, {:role, :owner}, fn -> if self() == first, do: :owner end)
    options = [session: session(context)]
    Process.flag(:trap_exit, true)

    assert {%{status: 404}, _call} =
             catch_exit(live_isolated(build_conn(), PlausibleWeb.Live.WebhookSettings, options))
  end

  test "says that webhooks are not running, instead of breaking the host's page", context do
    given = %{"instance" => inspect(__MODULE__)}
    html = context |> first_answer(given) |> Phoenix.ConnTest.html_response(200)
    assert html =~ "Webhooks cannot be shown at the moment"
  end

  test "an instance under a plain atom is found", context do
    context = start_page!(%{context | name: :"webhooks_#{System.unique_integer([:positive])}"})
    assert page!(context) |> render() =~ "No webhooks yet"
  end

  test "without a PubSub the page asks by itself", context do
    context = start_page!(context)
    view = page!(context, %{"pubsub" => nil})
    webhook!(context, "/hook", %{name: "Later"})
    assert shows!(view, "Later")
  end
end
