defmodule Plausible.Webhooks.StoreEctoValueTest do
  # What is in the tables: any bytes, and no secret in clear.
  use Plausible.Webhooks.Test.StoreCase, async: true

  alias Plausible.Webhooks.Store.Ecto.Text
  alias Plausible.Webhooks.StoreContract.Promise

  # Everything in the schema as PostgreSQL shows it, bytes as they are.
  defp dump(store) do
    schema = String.trim(store.prefix, ~s("))

    tables =
      Repo.query!("SELECT table_name FROM information_schema.tables WHERE table_schema = $1", [
        schema
      ]).rows

    rows =
      for [table] <- tables,
          [text] <- sql!(store, "SELECT row_to_json(t)::text FROM PREFIX.#{table} AS t"),
          do: text

    bytes = for [sealed] <- sql!(store, "SELECT sealed FROM PREFIX.webhooks"), do: sealed

    Enum.join(rows ++ bytes, "\n")
  end

  test "secrets, URLs and header values cannot be read in any table" do
    store = open!()

    webhook =
      a_webhook(
        name: "visible-name",
        url: "https://hooks.example.com/services/T0S3CRET/x?key=T0S3CRET",
        headers: [{"x-token", "T0S3CRET-header"}],
        secrets: [%{key: "whsec_T0S3CRET", created_at_ms: 1, expires_at_ms: nil}]
      )

    :ok = Store.insert_webhook(store, webhook)
    keys = [%{key: "whsec_T0S3CRET2", created_at_ms: 2, expires_at_ms: nil} | webhook.secrets]
    {:ok, webhook} = Store.update_webhook(store, %{webhook | secrets: keys})
    :ok = Store.put_health(store, webhook.id, %{failing_since_ms: 5})
    delivery = a_delivery(webhook_id: webhook.id)
    :ok = Store.accept(store, [delivery])
    :ok = Store.record(store, [failed(delivery, 1)])
    :ok = Store.cancel_waiting(store, webhook.id, "over") |> elem(0)

    text = dump(store)

    for secret <- ["T0S3CRET", "whsec_", "/services/", "x-token", "key="] do
      refute text =~ secret
      refute text =~ Base.encode16(secret, case: :lower)
      refute text =~ Base.encode64(secret, padding: false)
    end

    # Shows that the search works: text that is not encrypted is found.
    assert text =~ "hooks.example.com"
    assert text =~ "visible-name"
    assert Store.get_webhook(store, webhook.id) == {:ok, %{webhook | failing_since_ms: 5}}
  end

  test "secrets belong to no other row: what is sealed is bound to its webhook" do
    store = open!()
    [one, two] = for i <- 1..2, do: a_webhook(inserted_at_ms: i)
    for webhook <- [one, two], do: :ok = Store.insert_webhook(store, webhook)
    sql!(store, "UPDATE PREFIX.webhooks SET id = 'wh_taken_over' WHERE id = $1", [one.id])
    error = {:error, {:unreadable_webhook, "wh_taken_over", :not_authentic}}
    assert Store.get_webhook(store, "wh_taken_over") == error
    assert Store.get_webhook(store, two.id) == {:ok, two}
  end

  describe "any bytes" do
    defp some_bytes, do: Promise.odd_bytes() ++ for(_ <- 1..20, do: random())
    defp random, do: :crypto.strong_rand_bytes(:rand.uniform(40))

    test "are text and back, each by a text of its own" do
      bytes = some_bytes() ++ for(n <- 0..255, do: <<n>>) ++ for(_ <- 1..2_000, do: random())
      texts = Enum.map(bytes, &Text.encode/1)
      assert Enum.map(texts, &Text.decode/1) == bytes
      assert Enum.all?(texts, &(String.valid?(&1) and not String.contains?(&1, <<0>>)))
      assert texts |> Enum.uniq() |> length() == bytes |> Enum.uniq() |> length()
      # What is plain text stays readable in psql.
      assert Text.encode("Zürich \\ 中") == "Zürich \\ 中"
    end

    test "come back from every field of a delivery, by every way" do
      store = open!()

      for bytes <- Enum.uniq(some_bytes()), bytes != "" do
        delivery =
          a_delivery(
            id: "id " <> bytes,
            webhook_id: "wh " <> bytes,
            type: bytes,
            body: bytes,
            owner: "o " <> bytes,
            last_error: bytes
          )

        :ok = Store.accept(store, [delivery])
        assert Store.get_delivery(store, delivery.id) == {:ok, delivery}
        filters = %{webhook_id: delivery.webhook_id, types: [bytes], states: [:pending]}
        assert {:ok, %{entries: [entry]}} = Store.deliveries(store, 1, filters, %{})
        assert entry == %{delivery | body: nil}

        end_lease!(store, delivery.owner)
        claimer = "c " <> bytes
        :ok = Store.heartbeat(store, claimer, 60_000)
        assert {:ok, [claimed]} = Store.claim(store, claimer, 100)
        assert claimed == %{delivery | owner: claimer}
        end_lease!(store, claimer)

        assert {:ok, %{taken: [again]}} =
                 Store.redeliver(store, "r " <> bytes, [delivery.id], [:failed, :pending])

        assert {again.id, again.owner, again.body} == {delivery.id, "r " <> bytes, bytes}
        :ok = Store.release(store, "r " <> bytes, [delivery.id], 9_000_000_000_000)

        attempt =
          failed(delivery, 1,
            detail: bytes,
            remote_ip: bytes,
            response_headers: bytes,
            response_body: bytes
          )

        ended =
          an_attempt(delivery, number: 0, state: :cancelled, error: :cancelled, detail: bytes)

        other = a_delivery(id: "other " <> bytes)
        :ok = Store.accept(store, [other])
        :ok = Store.record(store, [attempt, %{ended | delivery_id: other.id}])
        assert Store.attempts(store, delivery.id) == {:ok, [attempt]}
        assert {:ok, %{state: :cancelled, reason: ^bytes}} = Store.get_delivery(store, other.id)
      end
    end

    test "come back from a webhook" do
      store = open!()

      for {bytes, i} <- Enum.with_index(Enum.uniq(some_bytes())) do
        webhook =
          a_webhook(
            id: "wh " <> bytes,
            site_id: i,
            name: bytes,
            url: "https://hooks.example.com/" <> bytes,
            events: [bytes, "goal.completed"],
            headers: [{bytes, bytes}],
            secrets: [%{key: bytes, created_at_ms: 1, expires_at_ms: 2}]
          )

        :ok = Store.insert_webhook(store, webhook)
        assert Store.get_webhook(store, webhook.id) == {:ok, webhook}
        assert Store.list_webhooks(store, i) == {:ok, [webhook]}
        assert {:ok, stored} = Store.update_webhook(store, %{webhook | name: bytes <> "!"})
        assert Store.get_webhook(store, webhook.id) == {:ok, stored}

        state =
          an_alert(
            webhook_id: webhook.id,
            kind: :drop,
            state: :firing,
            alert_id: bytes,
            notified_at_ms: 2
          )

        :ok = Store.put_alert_state(store, state)
        assert Store.alert_states(store, [webhook.id]) == {:ok, [state]}
        :ok = Store.delete_webhook(store, i, webhook.id)
      end
    end
  end

  describe "what no column holds" do
    test "refuses its batch as a whole, by an error" do
      store = open!()
      good = for _ <- 1..3, do: a_delivery()
      huge = Integer.pow(2, 63)

      for fields <- [
            [body: nil],
            [body: :atom],
            [body: ~c"list"],
            [id: nil],
            [id: 5],
            [webhook_id: nil],
            [type: nil],
            [type: :spike],
            [site_id: nil],
            [site_id: "1"],
            [site_id: huge],
            [goal_id: -huge - 1],
            [goal_id: 1.5],
            [state: :lost],
            [state: nil],
            [attempts: nil],
            [attempts: huge],
            [created_at_ms: nil],
            [created_at_ms: huge],
            [manual: nil],
            [manual: "yes"]
          ] do
        batch = Enum.shuffle([a_delivery(fields) | good])
        assert {:error, reason} = Store.accept(store, batch)

        assert reason == :invalid_value or match?({:postgres, :not_null_violation}, reason),
               "#{inspect(fields)}: #{inspect(reason)}"
      end

      assert count(store) == 0
      :ok = Store.accept(store, good)
      attempts = Enum.map(good, &an_attempt/1)

      for fields <- [
            [response_body: nil],
            [response_body: 7],
            [number: 1_048_576],
            [number: -1],
            [number: nil],
            [state: :lost],
            [started_at_ms: nil],
            [status: huge],
            [total_us: huge],
            [detail: :atom],
            [gone: nil]
          ] do
        batch = attempts ++ [an_attempt(hd(good), [number: 2] ++ fields)]
        assert {:error, reason} = Store.record(store, batch)

        assert {:ok, %{pending: 3}} = Store.counts(store),
               "#{inspect(fields)}: #{inspect(reason)}"
      end

      assert Store.attempts(store, hd(good).id) == {:ok, []}
      assert Store.record(store, attempts) == :ok
    end

    test "is an error everywhere else" do
      store = open!()
      huge = Integer.pow(2, 63)
      delivery = a_delivery()
      :ok = Store.accept(store, [delivery])

      for {callback, arguments} <- [
            insert_webhook: [a_webhook(site_id: huge)],
            insert_webhook: [a_webhook(goals: [huge])],
            insert_webhook: [a_webhook(site_id: nil)],
            insert_webhook: [a_webhook(name: 5)],
            insert_webhook: [a_webhook(events: [:spike])],
            update_webhook: [a_webhook(name: 5)],
            list_webhooks: [huge],
            release: ["a", [delivery.id], huge],
            heartbeat: ["a", huge],
            prune: [huge, 1],
            put_health: ["wh", %{failing_since_ms: huge}],
            deliveries: [huge, %{}, %{}],
            deliveries: [huge, %{goal_id: 1}, %{}]
          ] do
        assert {:error, _reason} = apply(Store, callback, [store | arguments])
      end

      assert Store.get_delivery(store, delivery.id) == {:ok, delivery}
    end
  end
end
