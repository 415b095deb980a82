# Writes events.ndjson: the events of two sites on one Monday.
#
#     elixir examples/generate.exs > examples/events.ndjson
#
# The output is the same every time. Two articles reach a front page (at 09:30 and
# 10:20); traffic is normal in between. At 10:45 a release breaks the site. A traffic drop
# fires once the last twelve hours had hardly any visitors. At 23:05 the site is repaired.

defmodule Generate do
  @site "example.com"
  @shop "boutique.example.org"
  @articles ~w(/blog/webhooks-in-depth /blog/2026/11/privacy /blog/käyttäjätutkimus /blog/日本語の統計)
  @pages ~w(/ / / /about /pricing /docs /docs/en/install /docs/et/install-docker /contact)
  @sources [
    nil,
    nil,
    nil,
    "https://duckduckgo.com/",
    "https://www.google.com/",
    "https://lobste.rs/s/abc"
  ]
  @devices [
    %{device: "Desktop", browser: "Firefox", os: "GNU/Linux", country: "EE"},
    %{device: "Mobile", browser: "Safari", os: "iOS", country: "FR"},
    %{device: "Desktop", browser: "Chrome", os: "Windows", country: "US"},
    %{device: "Tablet", browser: "Safari", os: "iPadOS", country: "JP"}
  ]

  def run do
    :rand.seed(:exsss, {2026, 11, 23})

    [
      visits("09:00:00", 30, 8),
      front_page("09:30:00", "/blog/webhooks-in-depth", "https://news.ycombinator.com/"),
      visits("09:36:00", 44, 8),
      front_page("10:20:00", "/blog/2026/11/privacy", "https://lobste.rs/"),
      visits("10:26:00", 19, 8),
      # While the site is broken, only the error page and a few bookmarks get visits.
      visits("10:45:00", 735, 0.1, &broken/3),
      visits("23:05:00", 25, 10),
      shop()
    ]
    |> List.flatten()
    |> Enum.sort_by(& &1.at)
    |> Enum.each(&IO.puts(json(order(&1))))
  end

  # --- visits

  defp visits(from, minutes, per_five_minutes, visit \\ &visit/3) do
    count = round(minutes * per_five_minutes / 5)

    for n <- 1..count do
      at = at(from) + trunc((n - 1 + :rand.uniform()) * minutes * 60 / count)
      visit.(at, "#{from}-#{n}", Enum.random(@sources))
    end
  end

  defp visit(at, visitor, referrer) do
    page = Enum.random(@pages ++ @articles)

    [page_view(at, visitor, page, referrer), reading(at, visitor, page), doing(at, visitor, page)]
  end

  # The front page of a news site: sixty visitors in four minutes.
  defp front_page(from, article, referrer) do
    for n <- 1..60 do
      at = at(from) + n * 4
      visitor = "#{from}-hn-#{n}"
      reading = if rem(n, 6) == 0, do: reading(at, visitor, article), else: []
      doing = if rem(n, 15) == 0, do: doing(at, visitor, "/"), else: []
      [page_view(at, visitor, article, referrer), reading, doing]
    end
  end

  defp broken(at, visitor, _referrer) do
    event(at, visitor, "404", "/oops", %{props: %{path: "/app.js"}})
  end

  # --- actions

  defp page_view(at, visitor, page, referrer),
    do: event(at, visitor, "pageview", page, if(referrer, do: %{referrer: referrer}, else: %{}))

  # The tracker reports the scroll depth repeatedly.
  defp reading(at, visitor, "/blog" <> _ = page) do
    depths = Enum.take([20, 45, 80, 90, 100], :rand.uniform(5))

    for {depth, n} <- Enum.with_index(depths, 1),
        do: event(at + 12 * n, visitor, "engagement", page, %{scroll_depth: depth})
  end

  defp reading(_at, _visitor, _page), do: []

  defp doing(at, visitor, page) do
    case :rand.uniform(14) do
      1 ->
        plan = Enum.random(~w(starter growth growth business))

        [
          event(at + 50, visitor, "Signup", "/register", %{
            props: %{plan: plan, team: "Žagarė & Söhne 🦊"}
          })
        ]

      2 ->
        amount = Enum.random(["9.00", "19.00", "49.90"])
        props = %{plan: "growth", seats: :rand.uniform(20), annual: true}

        [
          event(at + 80, visitor, "Purchase", "/checkout", %{
            props: props,
            revenue: %{amount: amount, currency: "EUR"}
          })
        ]

      3 ->
        [
          event(at + 20, visitor, "Outbound Link: Click", page, %{
            props: %{url: "https://github.com/plausible/analytics"}
          })
        ]

      4 ->
        [
          event(at + 30, visitor, "Newsletter ☕ tellimus", page, %{
            props: %{keel: "eesti", tervitus: "Tere, 世界! 👋🏽"}
          })
        ]

      _ ->
        []
    end
  end

  defp shop do
    for n <- 1..20 do
      at = at("09:10:00") + n * 290
      visitor = "shop-#{n}"

      view = %{
        event(at, visitor, "pageview", "/produit/thé-vert-#{rem(n, 4)}", %{})
        | domain: @shop
      }

      buy =
        event(at + 60, visitor, "Commande", "/merci", %{
          revenue: %{amount: "#{n}.50", currency: "EUR"}
        })

      if rem(n, 5) == 0, do: [view, %{buy | domain: @shop}], else: [view]
    end
  end

  # --- lines

  defp event(at, visitor, name, page, more) do
    Enum.random(@devices)
    |> Map.merge(%{at: at, visitor: visitor, name: name, domain: @site, page: page})
    |> Map.merge(more)
  end

  defp order(%{at: at} = event) do
    time = at |> DateTime.from_unix!() |> DateTime.to_iso8601()
    url = "https://#{event.domain}#{URI.encode(event.page)}"

    [at: time, visitor: event.visitor, name: event.name, url: url, domain: event.domain] ++
      for key <- [:referrer, :props, :scroll_depth, :revenue, :country, :device, :browser, :os],
          event[key] != nil,
          do: {key, event[key]}
  end

  defp at(time) do
    {:ok, at, 0} = DateTime.from_iso8601("2026-11-23T#{time}Z")
    DateTime.to_unix(at)
  end

  defp json(pairs) when is_map(pairs), do: pairs |> Enum.sort() |> json()

  defp json([{_, _} | _] = pairs),
    do:
      "{" <>
        Enum.map_join(pairs, ",", fn {key, value} -> json("#{key}") <> ":" <> json(value) end) <>
        "}"

  defp json(text) when is_binary(text),
    do: "\"" <> (text |> String.replace("\\", "\\\\") |> String.replace("\"", "\\\"")) <> "\""

  defp json(value), do: to_string(value)
end

Generate.run()
