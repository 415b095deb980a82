defmodule Plausible.Workers.TrafficChangeNotifier do
  @moduledoc false
  use Plausible.Repo
  alias Plausible.Stats.Clickhouse
  alias Plausible.Site.TrafficChangeNotification

  @min_interval_hours 12

  def perform(_job, now \\ NaiveDateTime.utc_now() |> NaiveDateTime.truncate(:second)) do
    today = NaiveDateTime.to_date(now)

    notifications =
      Repo.all(
        from sn in TrafficChangeNotification,
          where:
            is_nil(sn.last_sent) or
              sn.last_sent < ^NaiveDateTime.add(now, -@min_interval_hours * 3_600),
          inner_join: s in assoc(sn, :site),
          inner_join: t in assoc(s, :team),
          where: not t.locked,
          where: is_nil(t.accept_traffic_until) or t.accept_traffic_until > ^today,
          preload: [site: {s, team: t}]
      )

    for notification <- notifications, ok_to_send?(notification.site) do
      handle_notification(notification, now)
    end

    :ok
  end

  defp handle_notification(%TrafficChangeNotification{type: :spike} = notification, now) do
    current_visitors = Clickhouse.current_visitors(notification.site)

    if current_visitors >= notification.threshold do
      stats =
        notification.site
        |> get_traffic_spike_stats()
        |> Map.put(:current_visitors, current_visitors)

      notify_spike(notification, stats, now)
    end
  end

  defp handle_notification(%TrafficChangeNotification{type: :drop} = notification, now) do
    current_visitors = Clickhouse.current_visitors_12h(notification.site)

    if current_visitors < notification.threshold do
      notify_drop(notification, current_visitors, now)
    end
  end

  defp notify_spike(notification, stats, now) do
    for recipient <- notification.recipients do
      Plausible.Mailer.send(
        PlausibleWeb.Email.spike_notification(recipient, notification.site, stats, nil)
      )
    end

    notification
    |> TrafficChangeNotification.was_sent(now)
    |> Repo.update()
  end

  defp notify_drop(notification, current_visitors, now) do
    for recipient <- notification.recipients do
      Plausible.Mailer.send(
        PlausibleWeb.Email.drop_notification(recipient, notification.site, current_visitors, nil)
      )
    end

    notification
    |> TrafficChangeNotification.was_sent(now)
    |> Repo.update()
  end

  defp get_traffic_spike_stats(site), do: %{sources: top(site, :source), pages: top(site, :page)}

  defp top(site, what) do
    column = if what == :source, do: :referrer_source, else: :pathname

    Plausible.ClickhouseRepo.all(
      from e in "events_v2",
        where: e.site_id == ^site.id and field(e, ^column) != "",
        group_by: field(e, ^column),
        order_by: [desc: fragment("uniq(?)", e.user_id), asc: field(e, ^column)],
        limit: 3,
        select: {field(e, ^column), fragment("uniq(?)", e.user_id)}
    )
    |> Enum.map(fn {name, visitors} -> %{dimensions: [name], metrics: [visitors]} end)
  end

  defp ok_to_send?(site) do
    Plausible.Sites.regular?(site) or
      (Plausible.Sites.consolidated?(site) and
         Plausible.ConsolidatedView.ok_to_display?(site.team))
  end
end
