defmodule Plausible.Webhooks.StoreContract.Record do
  @moduledoc false
  use Plausible.Webhooks.StoreContract.Promise, about: "record"

  @waiting [:pending, :parked]
  @terminal [:delivered, :failed, :cancelled]

  shared_test "attempts come back as they went in, oldest first", store do
    delivery = accept!(store)
    most = 9_223_372_036_854_775_807

    full = %Attempt{
      delivery_id: delivery.id,
      webhook_id: delivery.webhook_id,
      number: 2,
      state: :pending,
      status: 503,
      error: :http_status,
      detail: "HTTP 503",
      started_at_ms: 1,
      dns_us: 0,
      connect_us: 2,
      tls_us: 3,
      first_byte_us: 4,
      total_us: most,
      remote_ip: "2606:4700::1111",
      signed_at_s: 1_790_000_000,
      response_headers: "content-type: text/html; charset=utf-8\n",
      response_body: :crypto.strong_rand_bytes(16_384),
      response_truncated: true,
      next_at_ms: 99,
      gone: true
    }

    empty = %Attempt{
      delivery_id: delivery.id,
      webhook_id: delivery.webhook_id,
      number: 1,
      state: :pending,
      error: :connect_timeout,
      started_at_ms: 0
    }

    # The greater number first: order is by number, not by arrival.
    assert record(store, [full]) == :ok
    assert record(store, [empty]) == :ok
    assert attempts(store, delivery.id) == {:ok, [empty, full]}
    assert attempts(store, "none") == {:ok, []}
    assert record(store, []) == :ok
  end

  shared_test "every class of error comes back as its atom", store do
    classes =
      ~w(http_status redirect gone dns_error dns_timeout blocked_address connection_refused
                 connection_reset connection_closed network_unreachable connect_timeout tls_error tls_timeout timeout
                 response_too_large protocol_error cancelled unknown_webhook internal)a

    delivery = accept!(store)

    given =
      for {class, number} <- Enum.with_index(classes, 1),
          do: failed(delivery, number, error: class)

    assert record(store, given) == :ok
    assert attempts(store, delivery.id) == {:ok, given}
  end

  shared_test "any bytes are kept in answer, content type and detail", store do
    for bytes <- odd_bytes() do
      delivery = accept!(store)

      attempt =
        failed(delivery, 1,
          response_body: bytes,
          response_headers: bytes,
          detail: bytes,
          remote_ip: bytes
        )

      assert record(store, [attempt]) == :ok
      assert attempts(store, delivery.id) == {:ok, [attempt]}

      ended = accept!(store)
      assert record(store, [failed(ended, 0, detail: bytes)]) == :ok
      assert get!(store, ended).reason == bytes
    end
  end

  shared_test "each state does what it says to the delivery", store do
    before_ms = now_ms(store)

    for {attempt, expected} <- [
          {[state: :delivered, status: 204],
           %{
             state: :delivered,
             last_status: 204,
             last_error: nil,
             reason: nil,
             owner: nil,
             next_at_ms: nil
           }},
          {[state: :pending, status: 500, error: :http_status, next_at_ms: 70],
           %{
             state: :pending,
             last_status: 500,
             last_error: "http_status",
             reason: nil,
             owner: "a",
             next_at_ms: 70
           }},
          {[state: :parked, status: nil, error: :timeout, next_at_ms: 80],
           %{
             state: :parked,
             last_status: nil,
             last_error: "timeout",
             reason: nil,
             owner: nil,
             next_at_ms: 80
           }},
          {[state: :failed, status: 302, error: :redirect, detail: "to /x"],
           %{
             state: :failed,
             last_status: 302,
             last_error: "redirect",
             reason: "redirect",
             owner: nil,
             next_at_ms: nil
           }},
          {[state: :cancelled, status: nil, error: :cancelled],
           %{
             state: :cancelled,
             last_status: nil,
             last_error: "cancelled",
             reason: "webhook_disabled",
             owner: nil
           }},
          # A terminal state has no next time, whatever the attempt says.
          {[state: :failed, error: :gone, next_at_ms: 90], %{state: :failed, next_at_ms: nil}}
        ] do
      delivery = accept!(store, next_at_ms: 60)
      assert record(store, [an_attempt(delivery, attempt)]) == :ok
      stored = get!(store, delivery)
      assert Map.take(stored, Map.keys(expected)) == expected
      assert stored.attempts == 1
      assert stored.body == delivery.body

      if stored.state in @terminal,
        do: assert(stored.finished_at_ms in before_ms..now_ms(store)),
        else: assert(stored.finished_at_ms == nil)
    end
  end

  shared_test "number 0 moves the delivery and leaves no attempt", store do
    delivery = accept!(store)
    :ok = record(store, [failed(delivery, 1, state: :pending, next_at_ms: 5)])

    :ok =
      record(store, [
        failed(delivery, 0,
          state: :cancelled,
          status: nil,
          error: :cancelled,
          detail: "webhook_deleted"
        )
      ])

    assert %{state: :cancelled, reason: "webhook_deleted", attempts: 1} =
             stored = get!(store, delivery)

    assert %{last_status: 500, last_error: "http_status", owner: nil, next_at_ms: nil} = stored
    assert {:ok, [%{number: 1}]} = attempts(store, delivery.id)

    bare = accept!(store)
    :ok = record(store, [failed(bare, 0, status: nil, error: :unknown_webhook)])

    assert %{state: :failed, reason: "unknown_webhook", attempts: 0, last_status: nil} =
             get!(store, bare)

    parked = accept!(store)
    :ok = record(store, [failed(parked, 0, state: :parked, next_at_ms: 9, error: nil)])
    assert %{state: :parked, next_at_ms: 9, owner: nil} = get!(store, parked)
  end

  shared_test "delivered wins over everything, nothing else moves what has ended", store do
    for ended <- [:failed, :cancelled], later <- @waiting ++ @terminal, number <- [0, 1, 2] do
      delivery = accept!(store)
      :ok = record(store, [failed(delivery, 1, state: ended)])
      first = get!(store, delivery)
      :ok = record(store, [an_attempt(delivery, number: number, state: later, next_at_ms: 5)])
      stored = get!(store, delivery)

      if later == :delivered do
        assert %{state: :delivered, reason: nil, next_at_ms: nil, owner: nil} = stored
      else
        assert {stored.state, stored.reason, stored.finished_at_ms, stored.next_at_ms} ==
                 {ended, first.reason, first.finished_at_ms, nil}
      end
    end

    for later <- @waiting ++ @terminal, number <- [0, 1, 2] do
      delivery = accept!(store)
      :ok = record(store, [an_attempt(delivery)])
      first = get!(store, delivery)
      :ok = record(store, [failed(delivery, number, state: later, next_at_ms: 5)])
      assert get!(store, delivery) == %{first | attempts: max(number, 1)}
    end
  end

  shared_test "an attempt after the end is still on record", store do
    delivery = accept!(store)
    :ok = record(store, [failed(delivery, 1)])
    :ok = record(store, [failed(delivery, 2, status: 404)])
    assert {:ok, [%{number: 1}, %{number: 2, status: 404}]} = attempts(store, delivery.id)
    assert %{state: :failed, attempts: 2, last_status: 404} = get!(store, delivery)
  end

  shared_test "recorded twice is recorded once", store do
    delivery = accept!(store)

    batch = [
      failed(delivery, 1, state: :pending, next_at_ms: 5),
      failed(delivery, 2, state: :parked, next_at_ms: 6)
    ]

    :ok = record(store, batch)
    once = {get!(store, delivery), attempts(store, delivery.id)}
    :ok = record(store, batch)
    :ok = record(store, Enum.reverse(batch))
    assert {get!(store, delivery), attempts(store, delivery.id)} == once
  end

  shared_test "of two attempts of one maker with one number the first stays, but an arrival counts",
              store do
    delivery = accept!(store)
    first = failed(delivery, 1, state: :pending, next_at_ms: 5)
    :ok = record(store, [first])
    :ok = record(store, [failed(delivery, 1, status: 404)])
    assert attempts(store, delivery.id) == {:ok, [first]}
    assert state(store, delivery) == :pending

    # The report of the same engine that got through.
    :ok = record(store, [an_attempt(delivery, number: 1)])
    assert attempts(store, delivery.id) == {:ok, [first]}
    assert state(store, delivery) == :delivered
  end

  shared_test "what was recorded before a redelivery does not end it afterwards", store do
    delivery = accept!(store)
    :ok = record(store, [failed(delivery, 1)])
    [again] = redeliver!(store, "b", [delivery.id])
    :ok = record(store, [failed(delivery, 1)])
    assert get_delivery(store, delivery.id) == {:ok, again}
    :ok = record(store, [failed(delivery, 2, status: 404)])
    assert %{state: :failed, attempts: 2, last_status: 404} = get!(store, delivery)
  end

  shared_test "one batch takes its attempts one after the other", store do
    delivery = accept!(store)
    other = accept!(store)

    :ok =
      record(store, [
        failed(delivery, 1, state: :pending, next_at_ms: 1),
        failed(other, 1, state: :pending, next_at_ms: 1),
        failed(delivery, 2, state: :parked, next_at_ms: 2),
        an_attempt(delivery, number: 3),
        failed(delivery, 4),
        failed(other, 2)
      ])

    assert %{state: :delivered, attempts: 4, last_status: 200} = get!(store, delivery)
    assert %{state: :failed, attempts: 2} = get!(store, other)
    assert {:ok, [_, _, _, _]} = attempts(store, delivery.id)
  end

  shared_test "attempts of deliveries that are not there are skipped, the others are written",
              store do
    delivery = accept!(store)
    gone = a_delivery()

    assert record(store, [an_attempt(gone), an_attempt(delivery), an_attempt(gone, number: 0)]) ==
             :ok

    assert state(store, delivery) == :delivered
    assert attempts(store, gone.id) == {:ok, []}
    assert get_delivery(store, gone.id) == {:error, :not_found}
  end

  shared_test "a thousand in one batch, and answers of many megabytes", store do
    deliveries = for _ <- 1..1_000, do: a_delivery()
    :ok = accept(store, deliveries)
    body = :crypto.strong_rand_bytes(16_384)
    assert record(store, Enum.map(deliveries, &an_attempt(&1, response_body: body))) == :ok
    assert {:ok, %{delivered: 1_000, pending: 0}} = counts(store)

    for delivery <- Enum.take_random(deliveries, 10) do
      assert {:ok, [%{response_body: ^body}]} = attempts(store, delivery.id)
    end
  end

  shared_test "the same batch from two sides at once is written once", store do
    deliveries = for _ <- 1..100, do: a_delivery()
    :ok = accept(store, deliveries)

    batch =
      Enum.flat_map(
        deliveries,
        &[failed(&1, 1, state: :pending, next_at_ms: 1), an_attempt(&1, number: 2)]
      )

    assert at_once(for _ <- 1..8, do: fn -> record(store, batch) end) == List.duplicate(:ok, 8)
    assert {:ok, %{delivered: 100, pending: 0}} = counts(store)
    for delivery <- deliveries, do: assert({:ok, [_, _]} = attempts(store, delivery.id))
  end

  # The rules once more, written down the other way: whatever the order, store and
  # model agree.
  shared_test "any sequence of attempts ends where the rules say", store do
    for _round <- 1..30 do
      delivery = accept!(store, state: Enum.random(@waiting ++ @terminal))
      first = get!(store, delivery)

      batches =
        for _ <- 1..:rand.uniform(4) do
          for _ <- 1..:rand.uniform(5) do
            failed(delivery, :rand.uniform(5) - 1,
              state: Enum.random(@waiting ++ @terminal),
              status: Enum.random([nil, 200, 404, 500]),
              error: Enum.random([nil, :timeout, :gone]),
              next_at_ms: Enum.random([nil, 5, 6])
            )
          end
        end

      for batch <- batches, do: assert(record(store, batch) == :ok)
      expected = batches |> Enum.concat() |> Enum.reduce(first, &model/2)
      stored = get!(store, delivery)

      assert %{stored | finished_at_ms: nil} == %{expected | finished_at_ms: nil},
             "after #{inspect(batches)}"

      assert stored.finished_at_ms != nil == stored.state in @terminal
      {:ok, written} = attempts(store, delivery.id)

      kept =
        batches
        |> Enum.concat()
        |> Enum.filter(&(&1.number > 0))
        |> Enum.uniq_by(& &1.number)
        |> Enum.sort_by(& &1.number)

      assert written == kept
    end
  end

  defp model(attempt, delivery) do
    moves? = moves?(delivery, attempt)
    delivery = if moves?, do: moved(delivery, attempt), else: delivery

    if attempt.number > delivery.attempts,
      do: noted(delivery, attempt, moves? or delivery.state != :delivered),
      else: if(moves? and attempt.number > 0, do: last(delivery, attempt), else: delivery)
  end

  defp moves?(%{state: state} = delivery, attempt) when state in @waiting,
    do: attempt.state == :delivered or attempt.number == 0 or attempt.number > delivery.attempts

  defp moves?(delivery, attempt),
    do: attempt.state == :delivered and delivery.state != :delivered

  defp moved(delivery, attempt) do
    error = attempt.error && Atom.to_string(attempt.error)

    %{
      delivery
      | state: attempt.state,
        reason: reason(attempt, error),
        next_at_ms: if(attempt.state in @waiting, do: attempt.next_at_ms),
        owner: if(attempt.state == :pending, do: delivery.owner)
    }
  end

  defp reason(%{state: :cancelled, number: number}, _error) when number > 0,
    do: "webhook_disabled"

  defp reason(%{state: state}, error), do: if(state in [:failed, :cancelled], do: error)

  defp noted(delivery, attempt, true), do: %{last(delivery, attempt) | attempts: attempt.number}
  defp noted(delivery, attempt, false), do: %{delivery | attempts: attempt.number}

  defp last(delivery, attempt) do
    %{
      delivery
      | last_status: attempt.status,
        last_error: attempt.error && Atom.to_string(attempt.error)
    }
  end

  shared_test "what its owner lets go of by an attempt that others have made before is nobody's",
              store do
    for {state, error} <- [parked: :http_status, failed: :http_status, cancelled: :cancelled] do
      :ok = heartbeat(store, "b", 60_000)
      delivery = accept!(store, owner: "b")
      # Another one has lost its lease, and does not know that yet.
      goes_on = [state: :pending, error: :timeout, next_at_ms: now_ms(store), owner: "a"]
      :ok = record(store, [an_attempt(delivery, goes_on ++ [total_us: 1])])
      assert %{state: :pending, owner: "b", attempts: 1} = get!(store, delivery)

      leaves = [state: state, error: error, next_at_ms: nil, total_us: 2]
      :ok = record(store, [an_attempt(delivery, [owner: "other"] ++ leaves)])
      :ok = record(store, [an_attempt(delivery, [owner: nil] ++ leaves)])
      assert %{state: :pending, owner: "b"} = get!(store, delivery)

      :ok = record(store, [an_attempt(delivery, [owner: "b"] ++ leaves)])
      assert %{state: :pending, owner: nil, attempts: 1} = get!(store, delivery)
      assert {:ok, [%{attempts: 1, owner: "c"}]} = claim(store, "c", 10)
      assert {:ok, [_by_a, _by_other, _by_nobody, _by_b]} = attempts(store, delivery.id)
      :ok = record(store, [an_attempt(delivery, number: 2)])
    end
  end

  shared_test "attempts of two engines with one number are both on record", store do
    delivery = accept!(store, owner: "a")

    for {owner, at} <- [{"a", 1}, {"b", 2}, {"a", 3}, {"c", 4}] do
      attempt = [owner: owner, started_at_ms: at, state: :pending, next_at_ms: 1]
      :ok = record(store, [failed(delivery, 1, attempt), failed(delivery, 2, attempt)])
    end

    {:ok, attempts} = attempts(store, delivery.id)

    assert Enum.map(attempts, &{&1.number, &1.started_at_ms}) ==
             for(n <- 1..2, at <- [1, 2, 4], do: {n, at})

    assert %{attempts: 2} = get!(store, delivery)
  end

  shared_test "an attempt that costs no retry moves the beginning of the schedule", store do
    delivery = accept!(store)
    parked = [state: :parked, next_at_ms: 5]
    :ok = record(store, [failed(delivery, 1, [schedule_from: 1] ++ parked)])
    assert %{attempts: 1, schedule_from: 1} = get!(store, delivery)
    :ok = record(store, [failed(delivery, 2, parked)])
    assert %{attempts: 2, schedule_from: 1} = get!(store, delivery)
  end

  shared_test "one number of a great many engines harms no other number", store do
    delivery = accept!(store, owner: "a")
    many = for n <- 1..40, do: failed(delivery, 1, owner: "o#{n}", state: :pending)
    :ok = record(store, many ++ [an_attempt(delivery, number: 2, owner: "a")])
    {:ok, attempts} = attempts(store, delivery.id)
    assert Enum.count(attempts, &(&1.number == 1)) >= 16
    assert %{number: 2, state: :delivered} = List.last(attempts)
  end

  shared_test "an engine that no longer owns a delivery cannot cancel or put it off", store do
    delivery = accept!(store, owner: "b")

    for state <- [:cancelled, :parked, :failed],
        do: :ok = record(store, [failed(delivery, 0, owner: "a", state: state, next_at_ms: 9)])

    assert get!(store, delivery) == delivery
    :ok = record(store, [failed(delivery, 0, owner: "b", state: :cancelled)])
    assert state(store, delivery) == :cancelled
  end

  shared_test "also when the others left a gap", store do
    :ok = heartbeat(store, "b", 60_000)
    delivery = accept!(store, owner: "b")
    :ok = record(store, [failed(delivery, 2, state: :pending, next_at_ms: 1, owner: "a")])
    :ok = record(store, [failed(delivery, 1, state: :parked, next_at_ms: 1, owner: "b")])
    assert %{state: :pending, owner: nil, attempts: 2} = get!(store, delivery)
  end

  shared_test "but not by an attempt that is recorded twice", store do
    :ok = heartbeat(store, "b", 60_000)
    delivery = accept!(store, owner: "b")
    parked = failed(delivery, 1, state: :parked, next_at_ms: 1, owner: "b", total_us: 5)
    :ok = record(store, [parked])
    assert {:ok, [%{owner: "b"}]} = claim(store, "b", 10)
    :ok = record(store, [parked])
    assert %{state: :pending, owner: "b"} = get!(store, delivery)
  end
end
