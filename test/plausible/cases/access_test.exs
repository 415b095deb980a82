defmodule Plausible.Webhooks.RealTree.AccessTest do
  # Who may no longer use a page, and which visitors Plausible does not count.
  use Plausible.Webhooks.Scenarios.Case, host: {Plausible.Webhooks.Test.PlausibleHost, nil}

  import Phoenix.ConnTest, only: [get: 2]
  import Phoenix.LiveViewTest
  import Plausible.Webhooks.Test.PlausibleHost, only: [ingest: 3, logged_in: 1, member!: 2, team_of: 1]

  alias Plausible.Teams.Memberships

  @endpoint PlausibleWeb.Endpoint

  for {role, text} <- [{"viewer", "made a viewer"}, {nil, "removed from the team"}] do
    test "a member who is #{text} can do nothing more on an open page", context do
      team = team_of(context.site)
      editor = member!(team, :editor)
      webhook = webhook!(context, "/hook", name: "Our CRM", events: ["goal.completed"])

      path = "/#{context.site.domain}/settings/webhooks/#{webhook.id}"
      view = open_page(path, editor)
      assert render(view) =~ "Our CRM"
      take_away(team, editor, unquote(role), context.user)

      # The page reloads, and its address is no longer found.
      render_hook(view, "delete", %{})
      assert_redirect(view, path)
      assert {:ok, [%{id: id}]} = list_webhooks(context)
      assert id == webhook.id
      assert {:error, %{reason: :forbidden}} = list_webhooks(%{context | user: editor})
    end
  end

  defp take_away(team, user, nil, owner), do: {:ok, _membership} = Memberships.Remove.remove(team, user.id, owner)

  defp take_away(team, user, role, owner),
    do: {:ok, _membership} = Memberships.UpdateRole.update(team, user.id, role, owner)

  defp open_page(path, user) do
    {:ok, view, _html} =
      user
      |> logged_in()
      |> Plug.Conn.assign(:live_module, PlausibleWeb.Live.WebhookSettings.Webhook)
      |> live(path)

    view
  end

  describe "visitors that Plausible does not count complete no goal:" do
    setup context do
      goal!(context, %{event_name: "Signup"})
      webhook!(context, "/hook", events: ["goal.completed"])
      :ok
    end

    test "bots", context do
      for agent <- ["generic crawler", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"],
          do: assert({202, true} = ingest(context, "Signup", %{agent: agent}))

      one_delivery(context, %{})
    end

    test "those whom a shield of the site refuses", context do
      {:ok, _rule} = Plausible.Shields.add_page_rule(context.site, %{"page_path" => "/hidden/**"})
      :ok = Plausible.Shield.PageRuleCache.refresh_all()
      assert {202, true} = ingest(context, "Signup", %{path: "/hidden/page"})
      one_delivery(context, %{path: "/shown"})
    end

    # The event of this visitor is the only one that is delivered.
    defp one_delivery(context, fields) do
      assert {202, false} = ingest(context, "Signup", fields)
      posts(context, "/hook", 1)
      assert settled(context, "/hook") == 1
    end
  end
end
