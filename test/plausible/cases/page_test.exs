defmodule Plausible.Webhooks.RealTree.PageTest do
  # The settings page in a real Plausible: who sees it, and how it looks and works in a
  # browser.
  use Plausible.Webhooks.Scenarios.Case, host: {Plausible.Webhooks.Test.PlausibleHost, nil}

  import Plausible.Webhooks.Test.PlausibleHost, except: [track: 3, goal!: 2, visits!: 4, no_visits!: 1]

  @password "a long password"

  test "only managers get the page, at every address, and nobody another site's webhook", context do
    %{managers: managers, others: others} = people!(context)
    path = "/#{context.site.domain}/settings/webhooks"
    {:ok, webhook} = Webhooks.create_webhook(context.user, context.site.id, url_and_events())
    {:ok, theirs} = Webhooks.create_webhook(:system, site!(team!(user!())).id, url_and_events())
    addresses = ["", "/new", "/deliveries?state=failed", "/#{webhook.id}", "/#{webhook.id}/edit"]
    missing = ["/#{theirs.id}", "/#{theirs.id}/edit", "/deliveries/msg_x", "/a/b/c"]

    for address <- addresses do
      # The super administrator has no row.
      for %{id: id} = user <- managers, id != 1_000_000, do: assert(get(path <> address, user) == 200)
      for user <- others, user != nil, do: assert(get(path <> address, user) == 404)
    end

    for address <- missing, do: assert(get(path <> address, context.user) == 404)
  end

  defp url_and_events, do: %{url: "https://example.com/hook", events: ["goal.completed"]}

  # The page in a browser needs Plausible's own scripts and styles.
  @assets ~w(priv/static/js/app.js priv/static/css/app.css)
  @missing Enum.reject(@assets, &File.regular?/1)

  if @missing == [] do
    @tag timeout: 300_000
    test "US3.1 to US4.2 in Chromium, light, dark and at 390 px", context do
      password_hash = Plausible.Auth.Password.hash(@password)
      owner = user!(password_hash: password_hash)
      site = site!(team!(owner))
      goal!(%{context | site: site}, %{event_name: "Signup"})
      HttpReceiver.script(context.receiver, "/missing", [{404, [], "not here"}])

      run = Path.join(System.fetch_env!("WEBHOOKS_ROOT"), "test/browser/run")
      page = "#{url()}/#{site.domain}/settings/webhooks"
      arguments = ["plausible.mjs", page, owner.email, @password, HttpReceiver.url(context.receiver, "")]
      {output, status} = System.cmd(run, arguments, stderr_to_stdout: true)
      IO.puts(output)
      assert status in [0, 77]

      if status == 0 do
        # The browser created this webhook and sent a test.
        assert {:ok, [%{name: "CRM"} | _]} = Webhooks.list_webhooks(owner, site.id)
        assert HttpReceiver.count(context.receiver, "/ok") >= 1
      end
    end
  else
    IO.puts("the page is not opened in a browser: this tree has no #{Enum.join(@missing, ", ")}")
  end

  # Sends a request with the user's session through the endpoint.
  defp get(path, user) do
    conn = logged_in(user)

    try do
      %{path: path, query: query} = URI.parse(path)
      path_info = String.split(path, "/", trim: true)
      conn = %{conn | method: "GET", path_info: path_info, request_path: path, query_string: query || ""}
      PlausibleWeb.Endpoint.call(conn, []).status
    rescue
      error -> Plug.Exception.status(error)
    end
  end
end
