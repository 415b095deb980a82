defmodule Plausible.Webhooks.Plausible.PlanTest do
  # A webhook tells no more than Plausible's dashboard and API show.
  use Plausible.Webhooks.Test.PlausibleCase, async: false

  alias Plausible.Webhooks.Host.Plausible, as: Host

  @compile {:no_warn_undefined, [Plausible.Repo]}

  setup_all do: plausible!(options: [retry_delays_ms: [20, 20, 20], jitter_percent: 0])

  setup context do
    goal!(context.site, %{"event_name" => "Purchase", "currency" => "EUR"})

    goal!(context.site, %{
      "event_name" => "Purchase",
      "display_name" => "Growth purchase",
      "custom_props" => %{"plan" => "growth"}
    })

    webhook = webhook!(context, "/hook", events: ["goal.completed"])
    %{team: Plausible.Repo.preload(context.site, :team).team, webhook: webhook}
  end

  # The bodies of one purchase, as `{goal, props, revenue?}`.
  defp purchase(context, count) do
    before = HttpReceiver.count(context.receiver, "/hook")
    props = %{"plan" => "growth", "email" => "eva@example.com", "url" => "https://x.test"}
    revenue = %{"amount" => "49.00", "currency" => "EUR"}
    track(context.site, "Purchase", props: props, revenue: revenue)

    context
    |> received("/hook", before + count)
    |> Enum.drop(before)
    |> Enum.map(fn %{"data" => %{"goal" => goal, "completion" => completion}} ->
      {goal["name"], completion["props"] |> Map.keys() |> Enum.sort(),
       completion["revenue"] != nil}
    end)
    |> Enum.sort()
  end

  defp sample(context) do
    {:ok, body} =
      Webhooks.sample(context.owner, context.site.id, context.webhook.id, "goal.completed")

    %{"data" => %{"goal" => goal, "completion" => completion}} = Jason.decode!(body)
    {goal["name"], Map.keys(completion["props"]), completion["revenue"] != nil}
  end

  defp change!(record, fields) do
    record
    |> Plausible.Repo.reload!()
    |> Ecto.Changeset.change(fields)
    |> Plausible.Repo.update!()
  end

  # As it does each minute.
  defp read_again!, do: :ok = Webhooks.Ingest.Directory.refresh_all(Webhooks)

  test "a plan that has everything tells everything", context do
    everything = ["email", "plan", "url"]

    assert purchase(context, 2) == [
             {"Growth purchase", everything, true},
             {"Purchase", everything, true}
           ]

    assert Host.site([], context.site.id).props == :all
    assert sample(context) == {"Growth purchase", ["plan"], false}
  end

  test "without custom properties neither they nor goals with them are told", context do
    change!(context.team, features: ["revenue_goals"])
    :ok = Webhooks.goals_changed(context.site.id)
    # Those of Plausible's own scripts are everybody's.
    assert purchase(context, 1) == [{"Purchase", ["url"], true}]
    assert [%{name: "Purchase"}] = Host.goals([], context.site.id)
    assert sample(context) == {"Purchase", [], true}

    change!(context.team, features: ["props", "revenue_goals"])
    read_again!()
    assert [_, _] = purchase(context, 2)
  end

  test "without revenue goals no revenue is told", context do
    change!(context.team, features: ["props"])
    read_again!()
    assert [{"Growth purchase", _, false}, {"Purchase", _, false}] = purchase(context, 2)
    refute Host.site([], context.site.id).revenue
    Plausible.Repo.delete_all(Ecto.assoc(context.site, :goals))
    goal!(context.site, %{"event_name" => "Purchase", "currency" => "EUR"})
    assert sample(context) == {"Purchase", [], false}
  end

  test "a property that the owner does not show is not told, but goals complete by it",
       context do
    change!(context.site, allowed_event_props: ["author"])
    read_again!()

    assert purchase(context, 2) == [
             {"Growth purchase", ["url"], true},
             {"Purchase", ["url"], true}
           ]

    assert sample(context) == {"Growth purchase", [], false}

    change!(context.site, allowed_event_props: ["author", "plan"])
    :ok = Webhooks.goals_changed(context.site.id)
    assert [{_, ["plan", "url"], true}, _] = purchase(context, 2)
    assert sample(context) == {"Growth purchase", ["plan"], false}
  end

  test "of a locked team nothing is told, until it is unlocked", context do
    change!(context.team, locked: true)
    read_again!()
    track(context.site, "Purchase")
    refute_received_at(context, "/hook")
    assert Webhooks.Ingest.Directory.lookup(Webhooks, context.site.id) == nil
    # An invented goal.
    assert {"Signup", ["plan"], true} = sample(context)

    change!(context.team, locked: false)
    read_again!()
    assert [_, _] = purchase(context, 2)
  end
end
