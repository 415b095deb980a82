defmodule PlausibleWeb.WebhookTestAddressTest do
  # Test addresses, and what the settings page does with them.
  use Plausible.Webhooks.Test.PageCase, async: true

  import Phoenix.ConnTest, only: [build_conn: 0, dispatch: 4, post: 3, response: 2]
  import Plug.Conn, only: [put_req_header: 3]

  alias Plausible.Webhooks.Native
  alias PlausibleWeb.WebhookTestAddress

  defp address(context, site_id \\ 1) do
    WebhookTestAddress.url(@endpoint, "/webhooks/test/", context.name, site_id)
  end

  defp signed(context, webhook, delivery, changes \\ %{}) do
    {:ok, keys} = API.reveal_secret(context.name, :owner, 1, webhook.id)
    at = System.system_time(:second)
    {:ok, signature} = Native.sign(Enum.map(keys, & &1.key), delivery.id, at, delivery.body)

    %{
      "content-type" => "application/json",
      "webhook-id" => delivery.id,
      "webhook-timestamp" => to_string(at),
      "webhook-signature" => signature
    }
    |> Map.merge(changes)
    |> Enum.reduce(build_conn(), fn {name, value}, conn -> put_req_header(conn, name, value) end)
  end

  setup context do
    context = start_page!(context)
    webhook = webhook!(context, "/hook")
    %{context: context, webhook: webhook, delivery: accept!(context, webhook, state: :failed)}
  end

  test "answer what arrived, and whether the signature fits",
       %{context: context, webhook: webhook, delivery: delivery} do
    conn = signed(context, webhook, delivery, %{"x-token" => "t0ken"})
    text = conn |> post(address(context), delivery.body) |> response(200)
    assert text =~ "The signature fits."
    assert text =~ "webhook-id: #{delivery.id}"
    assert text =~ delivery.body
    assert text =~ "x-token: (5 bytes)"
    refute text =~ "t0ken"

    for {changes, body} <- [
          {%{}, delivery.body <> " "},
          {%{"webhook-timestamp" => "1"}, delivery.body},
          {%{"webhook-timestamp" => "soon"}, delivery.body},
          {%{"webhook-signature" => "v1,x"}, delivery.body}
        ] do
      conn = signed(context, webhook, delivery, changes)
      assert conn |> post(address(context), body) |> response(400) =~ "The signature does not fit"
    end
  end

  test "are of one site and nobody else's, bounded in time, size and rate",
       %{context: context, webhook: webhook, delivery: delivery} do
    conn = signed(context, webhook, delivery)
    send = fn address, body, status -> conn |> post(address, body) |> response(status) end

    assert send.(address(context, 2), delivery.body, 404) == "This is not a delivery of the site."
    assert send.("/webhooks/test/forged", delivery.body, 404) =~ "no such test address"
    assert send.(address(context), String.duplicate("x", 262_145), 413) =~ "too long"

    old = [signed_at: System.system_time(:second) - 3_601]
    token = Phoenix.Token.sign(@endpoint, "webhooks test address", {context.name, 1}, old)
    assert send.("/webhooks/test/" <> token, "", 410) =~ "good for an hour"

    nameless = put_req_header(build_conn(), "content-type", "application/json")
    assert nameless |> post(address(context), "") |> response(404)
    for _ <- 1..70, do: post(conn, address(context), delivery.body)
    assert send.(address(context), delivery.body, 429) =~ "Too many"

    :ok = stop_supervised!(context.name)
    assert send.(address(context), delivery.body, 503) =~ "not available"
    # Only a POST is served.
    assert build_conn() |> dispatch(@endpoint, :get, address(context)) |> response(404)
  end

  test "are offered by the form, where the host has the plug", %{context: context} do
    view = page!(context, "/new")
    refute has_element?(view, "#webhook-test-address")
    assert context |> get("/new") |> response(200) =~ "webhook-test-address"
    base = "http://127.0.0.1:4001/webhooks/test/"
    view = page!(context, "/new", %{"test_address" => base})
    click(view, "#webhook-test-address")
    assert view |> element("#webhook-url") |> render() =~ base
    view |> form("#webhook-form", %{}) |> render_submit()
    left!(view)
    {:ok, webhooks} = API.list_webhooks(context.name, :owner, 1)
    %{url: url, id: id} = Enum.find(webhooks, &(&1.url =~ "/webhooks/test/"))
    assert String.starts_with?(url, base)
    view = page!(context, "/#{id}", %{"test_address" => base})
    assert has_element?(view, "#webhook-at-test-address")
  end
end
