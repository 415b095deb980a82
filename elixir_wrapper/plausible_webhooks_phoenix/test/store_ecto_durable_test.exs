defmodule Plausible.Webhooks.StoreEctoDurableTest do
  # A host may have switched off that commits wait for the disk. What the store says it
  # has written has to be there all the same, when the server is killed right after.
  use Plausible.Webhooks.Test.StoreCase, async: false

  alias Plausible.Webhooks.Test.Postgres

  @moduletag :crash
  @moduletag :capture_log

  setup do
    settings = [
      synchronous_commit: "off",
      wal_writer_delay: "10s",
      wal_writer_flush_after: "100MB"
    ]

    server = Postgres.supervised!(settings)
    %{server: server}
  end

  defp connect!(server) do
    options = Postgres.connect(Agent.get(server, & &1)) ++ [name: nil, pool_size: 2, log: false]
    repo = start_supervised!({Repo, options}, id: make_ref())
    Repo.put_dynamic_repo(repo)
    repo
  end

  test "what was written is there after a kill -9 of the server", %{server: server} do
    connect!(server)
    :ok = migrate!("public", :up)
    {:ok, store} = Store.init(repo: Repo, vault: vault())
    Repo.query!("CHECKPOINT")

    webhook = a_webhook(site_id: 1)
    [first, second, third] = for _ <- 1..3, do: a_delivery(owner: "a")
    [fourth, fifth] = for _ <- 1..2, do: a_delivery(owner: "a", webhook_id: webhook.id)

    steps = [
      fn -> Store.accept(store, [first]) end,
      fn -> Store.accept(store, [second, third]) end,
      fn -> Store.claim(store, "b", 1) end,
      fn -> Store.reclaim(store, "c", "b", 1) end,
      fn -> Store.release(store, "c", [first.id], 9) end,
      fn -> Store.record(store, [failed(second, 1), failed(second, 2), an_attempt(third)]) end,
      fn -> Store.redeliver(store, "d", [second.id, first.id], [:pending, :failed]) end,
      fn -> Store.insert_webhook(store, webhook) end,
      fn -> Store.update_webhook(store, %{webhook | name: "New"}) end,
      fn -> Store.accept(store, [fourth, fifth]) end,
      fn -> Store.cancel_waiting(store, webhook.id, "over") end,
      fn -> Store.delete_webhook(store, 1, webhook.id) end
    ]

    Enum.reduce(steps, states(), fn step, before ->
      _ = step.()
      written = states()
      assert written != before
      Agent.update(server, &tap(&1, fn cluster -> Postgres.kill!(cluster) end), 60_000)
      Agent.update(server, &Postgres.again!/1, 60_000)
      connect!(server)
      assert states() == written
      Repo.query!("CHECKPOINT")
      written
    end)
  end

  # What is deleted of a log may come back; it is deleted again.
  defp states do
    for sql <- [
          "SELECT id, name FROM webhooks ORDER BY id",
          "SELECT id, state, owner FROM webhook_deliveries
           WHERE webhook_id = 'wh_1' OR webhook_id IN (SELECT id FROM webhooks) ORDER BY id"
        ],
        do: Repo.query!(sql).rows
  end
end
