defmodule PlausibleWeb.Live.WebhookSettings.MountTest do
  # The addresses of the views, and who may open them.
  use Plausible.Webhooks.Test.PageCase, async: true

  import Phoenix.ConnTest, only: [html_response: 2]

  alias PlausibleWeb.Live.WebhookSettings
  alias PlausibleWeb.Live.WebhookSettings.NotFound

  defmodule Nobody do
    def actor(_session, _socket), do: :error
  end

  defmodule NoAuth do
    def actor, do: {:ok, :owner}
  end

  # Every address of the page.
  defp addresses(webhook, delivery) do
    ["", "/new", "/deliveries", "/#{webhook.id}", "/#{webhook.id}/edit"] ++
      ["/deliveries/#{delivery.id}", "/deliveries?state=failed&after=x"]
  end

  test "each view answers at its address, connected and not, with its own title", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook", %{name: "CRM"})
    delivery = accept!(context, webhook, state: :delivered)

    titles =
      for address <- addresses(webhook, delivery) do
        assert context |> get(address) |> html_response(200) =~ ~s(id="webhook-settings")
        :sys.get_state(page!(context, address).pid).socket.assigns.page_title
      end

    assert "CRM · Webhooks · site1.example" in titles
    assert "Edit CRM · site1.example" in titles
    assert length(Enum.uniq(titles)) == 6
  end

  test "an address of another site, of nothing, or of a view that is not there is not found",
       context do
    context = start_page!(context)
    {:ok, theirs} = API.create_webhook(context.name, :other, 2, url_and_events(context))
    delivery = accept!(context, theirs, state: :failed)

    missing = ["/wh_nonsense", "/deliveries/msg_x", "/a/b/c", "/wh_x/delete", "/%00", "/%FF/edit"]

    for address <- Enum.drop(addresses(theirs, delivery), 3) ++ missing,
        not (address =~ "?") do
      assert {404, _headers, _body} = assert_error_sent(404, fn -> get(context, address) end)
    end

    assert render(page!(context, "/deliveries?webhook=#{theirs.id}")) =~ "No delivery found"
    assert render(page!(context, "/deliveries?id=#{delivery.id}")) =~ "No delivery of this site"
  end

  defp url_and_events(context),
    do: %{url: HttpReceiver.url(context.receiver, "/theirs"), events: ["goal.completed"]}

  defp assert_error_sent(status, fun), do: Phoenix.ConnTest.assert_error_sent(status, fun)

  test "nobody else finds anything, at any address", context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    delivery = accept!(context, webhook, state: :delivered)

    for address <- addresses(webhook, delivery) do
      for actor <- ~w(viewer other nobody),
          do: assert_error_sent(404, fn -> get(context, address, actor) end)

      for given <- [
            %{"actor" => "owner", "site_id" => 3},
            %{"actor" => "viewer", "site_id" => 2},
            %{"site_id" => "1"},
            %{"site_id" => nil},
            %{"path" => nil, "site_id" => nil},
            %{"auth" => inspect(Nobody)},
            %{"auth" => inspect(NoAuth)},
            %{"auth" => "No.Such.Module"},
            %{"auth" => ":lists"},
            %{"auth" => nil},
            %{"instance" => "No.Such.Instance"},
            %{"instance" => 7}
          ] do
        assert_raise NotFound, fn -> page!(context, address, given) end
      end
    end
  end

  test "it is asked again when it connects", context do
    context = start_page!(context)
    first = self()
    TestHost.put(context.host, {:role, :owner}, fn -> if self() == first, do: :owner end)
    Process.flag(:trap_exit, true)
    assert {%{status: 404}, _call} = catch_exit(page!(context))
  end

  test "says that webhooks are not running, instead of breaking the host's page", context do
    html = %{name: __MODULE__} |> get("") |> html_response(200)
    assert html =~ "Webhooks cannot be shown at the moment"
    context = start_page!(context)
    TestHost.put(context.host, {:role, :owner}, fn -> raise "the database is away" end)
    assert context |> get("") |> html_response(200) =~ "cannot be shown at the moment"
  end

  test "a view that connects while webhooks are not running leaves for its address", context do
    context = start_page!(context)
    first = self()
    down = fn -> if self() == first, do: :owner, else: raise("the database is away") end
    TestHost.put(context.host, {:role, :owner}, down)
    assert_raise MatchError, ~r/:redirect, %{.*to: "/, fn -> page!(context) end
  end

  test "an instance under a plain atom is found", context do
    context = start_page!(%{context | name: :"webhooks_#{System.unique_integer([:positive])}"})
    assert render(page!(context)) =~ "Create your first webhook"
  end

  test "without a PubSub the page asks by itself", context do
    context = start_page!(context)
    view = page!(context, "", %{"pubsub" => nil})
    webhook!(context, "/hook", %{name: "Later"})
    assert shows!(view, "Later")
  end

  test "the page brings its script, with a nonce, unless the host loads it", context do
    context = start_page!(context)
    assert render(page!(context, "", %{"nonce" => "n0nce"})) =~ ~s(<script nonce="n0nce">)
    refute render(page!(context, "", %{"script" => "host"})) =~ "<script"
  end

  test "a mount point is what is before the segments of the view, as the browser sent it" do
    conn = %Plug.Conn{
      request_path: "/a%2Fb/settings/webhooks/x/",
      path_params: %{"view" => ["x", "y", "z"]},
      query_params: %{}
    }

    assert_raise NotFound, fn -> WebhookSettings.live(conn, %{}) end
    assert WebhookSettings.view(["x", "edit"]) == WebhookSettings.Form
  end
end
