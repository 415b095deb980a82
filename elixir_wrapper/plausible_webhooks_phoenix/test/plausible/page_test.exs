defmodule Plausible.Webhooks.Plausible.PageTest do
  # The settings page as Plausible embeds it: who looks is found as Plausible's own live
  # views find it, and who may is asked of Plausible.
  use Plausible.Webhooks.Test.PlausibleCase, async: false

  import Phoenix.ConnTest, only: [build_conn: 0]
  import Phoenix.LiveViewTest
  import Plausible.Webhooks.Test.PageCase, only: [click: 2, settled: 1, shows!: 2]

  alias Plausible.Webhooks.Host.Plausible, as: Adapter
  alias PlausibleWeb.Live.WebhookSettings
  alias PlausibleWeb.Live.WebhookSettings.NotFound

  # There when the test runs.
  @compile {:no_warn_undefined,
            [Plausible.Auth.UserSession, Plausible.Repo, Plausible.Teams.Membership]}

  @endpoint Demo.Web.Endpoint
  @moduletag :capture_log

  setup_all do: plausible!()

  defp page(site, user) do
    session = Map.put(Adapter.page_session(%{assigns: %{site: site}}), "user_token", token(user))
    {:ok, view, _html} = live_isolated(build_conn(), WebhookSettings, session: session)
    settled(view)
    view
  end

  defp token(nil), do: nil

  defp token(user) do
    token = "token#{System.unique_integer([:positive])}"
    fields = [token: token, user_id: user.id]
    Plausible.Repo.insert!(struct!(Plausible.Auth.UserSession, fields))
    token
  end

  test "owners, admins and editors see it; viewers and strangers find nothing", context do
    %{site: site, owner: owner} = context
    team = Plausible.Repo.preload(site, :team).team
    webhook!(context, "/mine", events: ["goal.completed"], name: "Our CRM")

    people =
      for role <- [:admin, :editor, :viewer, :billing] do
        user = user!()
        member!(team, user, role)
        {role, user}
      end

    guests =
      for role <- [:editor, :viewer] do
        user = user!()
        guest!(site, user, role)
        {role, user}
      end

    for {role, user} <- [{:owner, owner} | people ++ guests] do
      if role in [:owner, :admin, :editor],
        do: assert(site |> page(user) |> render() =~ "Our CRM"),
        else: assert_raise(NotFound, fn -> page(site, user) end)
    end

    for nobody <- [user!(), nil], do: assert_raise(NotFound, fn -> page(site, nobody) end)
  end

  test "a role that is taken away while the page is open counts at the next event", context do
    %{site: site} = context
    editor = user!()
    team = Plausible.Repo.preload(site, :team).team
    membership = member!(team, editor, :editor)
    webhook = webhook!(context, "/mine", events: ["goal.completed"], name: "Our CRM")
    view = page(site, editor)
    click(view, "#webhook-#{webhook.id} h3 button")
    Plausible.Repo.delete!(membership)
    html = render_click(element(view, "#webhook-pause"))
    assert html =~ "You can no longer manage this site"
    refute html =~ "Our CRM"
    assert {:ok, %{enabled: true}} = Webhooks.get_webhook(context.owner, site.id, webhook.id)
  end

  test "what an event leads to shows by itself, goals by their names", context do
    %{site: site, owner: owner} = context
    goal!(site, %{"event_name" => "Signup"})
    webhook!(context, "/mine", events: ["goal.completed"], name: "Our CRM")
    view = page(site, owner)
    assert {202, _headers} = track(site, "Signup", path: "/register")
    shows!(view, "100 % of 1")
    click(view, "button[phx-click='page.delivery']")
    assert render(view) =~ "Signup"
  end
end
