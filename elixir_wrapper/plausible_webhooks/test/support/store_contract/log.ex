defmodule Plausible.Webhooks.StoreContract.Log do
  @moduledoc false
  use Plausible.Webhooks.StoreContract.Promise, about: "log"

  shared_test "is the site's, newest first, without bodies", store do
    middle = accept!(store, created_at_ms: 20)

    newest =
      accept!(store, created_at_ms: 30, webhook_id: "wh_2", state: :failed, finished_at_ms: 1)

    oldest = accept!(store, created_at_ms: 10)
    other = accept!(store, created_at_ms: 20, site_id: 2)

    assert {:ok, %{entries: entries, next: nil}} = deliveries(store, 1, %{}, %{})
    assert entries == Enum.map([newest, middle, oldest], &%{get!(store, &1) | body: nil})
    assert {:ok, %{entries: [entry], next: nil}} = deliveries(store, 2, %{}, %{})
    assert entry.id == other.id
    assert deliveries(store, 3, %{}, %{}) == {:ok, %{entries: [], next: nil}}
  end

  shared_test "pages hold everything once, whatever their size", store do
    # Many of the same millisecond: the order must hold among them too.
    :ok = accept(store, for(i <- 1..230, do: a_delivery(created_at_ms: div(i, 40))))
    {:ok, %{entries: first_page}} = deliveries(store, 1, %{}, %{limit: 200})
    {:ok, %{entries: default}} = deliveries(store, 1, %{}, %{after: nil})
    assert default == Enum.take(first_page, 50)

    whole = pages(store, %{}, 200)
    assert length(whole) == 230
    assert whole |> ids() |> Enum.uniq() |> length() == 230

    assert Enum.map(whole, & &1.created_at_ms) ==
             Enum.sort(Enum.map(whole, & &1.created_at_ms), :desc)

    for limit <- [1, 7, 23, 46, 115, 199], do: assert(pages(store, %{}, limit) == whole)
  end

  shared_test "there is a next page exactly when there is more", store do
    :ok = accept(store, for(i <- 1..10, do: a_delivery(created_at_ms: i)))
    assert {:ok, %{entries: [_ | _] = nine, next: next}} = deliveries(store, 1, %{}, %{limit: 9})
    assert length(nine) == 9 and is_binary(next)
    assert {:ok, %{entries: [_], next: nil}} = deliveries(store, 1, %{}, %{limit: 9, after: next})
    assert {:ok, %{entries: ten, next: nil}} = deliveries(store, 1, %{}, %{limit: 10})
    assert length(ten) == 10
  end

  shared_test "what arrives while somebody turns pages disturbs none of them", store do
    :ok = accept(store, for(i <- 1..60, do: a_delivery(created_at_ms: i)))
    whole = pages(store, %{}, 200)

    turned =
      Stream.unfold({:more, nil}, fn
        :done ->
          nil

        {:more, cursor} ->
          {:ok, %{entries: entries, next: next}} =
            deliveries(store, 1, %{}, %{limit: 7, after: cursor})

          :ok = accept(store, for(i <- 1..9, do: a_delivery(created_at_ms: 1_000 + i)))
          {entries, if(next, do: {:more, next}, else: :done)}
      end)

    assert turned |> Enum.concat() |> ids() == ids(whole)
  end

  shared_test "a page stays in place when what it ended with is gone", store do
    :ok =
      accept(
        store,
        for(i <- 1..20, do: a_delivery(created_at_ms: i, state: :failed, finished_at_ms: i))
      )

    whole = pages(store, %{}, 200)
    {:ok, %{next: next}} = deliveries(store, 1, %{}, %{limit: 5})
    # The oldest five, and the last one of the page by a change of state.
    {:ok, 5} = prune(store, 6, 10)
    [_] = redeliver!(store, "b", [Enum.at(whole, 4).id])
    {:ok, %{entries: entries, next: nil}} = deliveries(store, 1, %{}, %{limit: 50, after: next})
    assert ids(entries) == whole |> ids() |> Enum.slice(5, 10)
  end

  shared_test "filters hold alone and together", store do
    :rand.seed(:exsss, {1, 2, 3})

    all =
      for i <- 1..400 do
        attempts = Enum.random(0..2)

        a_delivery(
          created_at_ms: Enum.random(0..300),
          webhook_id: Enum.random(["wh_1", "wh_2", "wh_3"]),
          state: Enum.random([:pending, :parked, :held, :delivered, :failed, :cancelled]),
          type: Enum.random(["goal.completed", "traffic.spike", "webhook.test"]),
          goal_id: Enum.random([nil, 1, 2]),
          attempts: attempts,
          last_status:
            if(attempts > 0, do: Enum.random([nil, 200, 299, 301, 404, 499, 500, 599])),
          finished_at_ms: i,
          owner: nil
        )
      end

    :ok = accept(store, all)

    choices = %{
      webhook_id: ["wh_1", "wh_none"],
      states: [
        [:failed],
        [:failed, :cancelled],
        [:pending, :parked],
        [:held],
        [:delivered, :failed],
        []
      ],
      types: [["goal.completed"], ["goal.completed", "webhook.test"], ["none"], []],
      goal_id: [1, 99],
      status_class: [2, 3, 4, 5, :none],
      since_ms: [0, 100, 301],
      until_ms: [0, 100, 200, 301]
    }

    alone = for {key, values} <- choices, value <- values, do: %{key => value}

    together =
      for _ <- 1..60 do
        for key <- Enum.take_random(Map.keys(choices), Enum.random(2..5)),
            into: %{},
            do: {key, Enum.random(choices[key])}
      end

    for filters <- [%{} | alone ++ together] do
      expected = all |> Enum.filter(&match_all?(&1, filters)) |> ids() |> Enum.sort()
      found = pages(store, filters, Enum.random([3, 40, 200]))
      assert found |> ids() |> Enum.sort() == expected, "filters #{inspect(filters)}"
      times = Enum.map(found, & &1.created_at_ms)
      assert times == Enum.sort(times, :desc)
    end
  end

  defp match_all?(delivery, filters), do: Enum.all?(filters, &match_one?(delivery, &1))
  defp match_one?(d, {:webhook_id, id}), do: d.webhook_id == id
  defp match_one?(d, {:states, states}), do: d.state in states
  defp match_one?(d, {:types, types}), do: d.type in types
  defp match_one?(d, {:goal_id, id}), do: d.goal_id == id
  defp match_one?(d, {:status_class, :none}), do: d.last_status == nil and d.attempts > 0

  defp match_one?(d, {:status_class, class}),
    do: d.last_status != nil and div(d.last_status, 100) == class

  defp match_one?(d, {:since_ms, ms}), do: d.created_at_ms >= ms
  defp match_one?(d, {:until_ms, ms}), do: d.created_at_ms < ms

  shared_test "the rare is found among the many", store do
    rare = for i <- [1, 5_555, 12_000], do: a_delivery(created_at_ms: i, webhook_id: "wh_rare")

    many =
      for i <- 1..12_000,
          do: a_delivery(created_at_ms: i, state: :delivered, owner: nil, body: "")

    for batch <- Enum.chunk_every(many ++ rare, 1_000), do: :ok = accept(store, batch)

    expected = rare |> ids() |> Enum.reverse()

    for limit <- [1, 2, 3, 50],
        do: assert(store |> pages(%{webhook_id: "wh_rare"}, limit) |> ids() == expected)

    assert pages(store, %{webhook_id: "wh_rare", since_ms: 2, until_ms: 12_000}, 1) |> length() ==
             1

    assert deliveries(store, 1, %{webhook_id: "wh_none"}, %{}) == {:ok, %{entries: [], next: nil}}
  end

  shared_test "what is no filter, no cursor, no limit is refused", store do
    accept!(store)

    for {filters, key} <- [
          {%{colour: "blue"}, :colour},
          {%{states: [:lost]}, :states},
          {%{states: :failed}, :states},
          {%{types: "goal.completed"}, :types},
          {%{types: [:spike]}, :types},
          {%{webhook_id: nil}, :webhook_id},
          {%{goal_id: "1"}, :goal_id},
          {%{goal_id: Integer.pow(2, 70)}, :goal_id},
          {%{status_class: 1}, :status_class},
          {%{status_class: "2"}, :status_class},
          {%{since_ms: 1.5}, :since_ms},
          {%{until_ms: "x"}, :until_ms}
        ] do
      assert deliveries(store, 1, filters, %{}) == {:error, {:invalid_filter, key}}
    end

    for limit <- [0, -1, 201, nil, "5"] do
      assert deliveries(store, 1, %{}, %{limit: limit}) == {:error, :invalid_limit}
    end

    for cursor <-
          [
            "",
            "x",
            "MTox",
            "_",
            1,
            "1:1",
            Base.url_encode64("a:b"),
            Base.url_encode64("1:1 OR 1=1")
          ] ++ odd_bytes() do
      assert deliveries(store, 1, %{}, %{after: cursor}) |> refused_or_page?(cursor)
    end
  end

  # A cursor is opaque: a store may understand what it has not made, as long as it
  # is no accident.
  defp refused_or_page?({:error, :invalid_cursor}, _cursor), do: true
  defp refused_or_page?({:ok, %{entries: _}}, cursor), do: cursor == "MTox"

  shared_test "numbers that no store holds find nothing and break nothing", store do
    delivery = accept!(store)
    huge = Integer.pow(2, 80)

    for site_id <- [huge, -huge],
        do: refute(match?({:ok, %{entries: [_ | _]}}, deliveries(store, site_id, %{}, %{})))

    for site_id <- [huge, -huge],
        do: refute(match?({:ok, [_ | _]}, list_webhooks(store, site_id)))

    assert %{} = get!(store, delivery)
  end

  defp pages(store, filters, limit, cursor \\ nil) do
    {:ok, %{entries: entries, next: next}} =
      deliveries(store, 1, filters, %{limit: limit, after: cursor})

    assert length(entries) <= limit
    if next, do: entries ++ pages(store, filters, limit, next), else: entries
  end
end
