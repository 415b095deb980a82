defmodule Plausible.Webhooks.Manage.DeliveryLogTest do
  use Plausible.Webhooks.Test.InstanceCase, async: true

  alias Plausible.Webhooks, as: API

  @moduletag :capture_log

  describe "the log" do
    setup context do
      context = start!(context, retry_delays_ms: [])
      good = webhook!(context, "/good")
      bad = webhook!(context, "/bad")
      HttpReceiver.script(context.receiver, "/bad", [500])
      :ok = Outbox.push(context.instance, deliveries(good, 5) ++ deliveries(bad, 4))

      eventually(fn ->
        Enum.count(all_deliveries(context), &(&1.state in [:delivered, :failed])) == 9
      end)

      Map.merge(context, %{good: good, bad: bad})
    end

    defp page(context, filters, page \\ %{}),
      do: deliveries(context, filters, page)

    test "values that are given many times count once", context do
      {:ok, %{entries: failed}} = page(context, %{states: List.duplicate(:failed, 40_000)})
      assert length(failed) == 4

      for count <- [63, 64, 65, 100, 200, 40_000] do
        types = List.duplicate("goal.completed", count)
        assert {:ok, %{entries: [_ | _]}} = page(context, %{types: types})
      end

      for list <- [[:failed | :failed], ["goal.completed" | "x"]],
          key <- [:states, :types],
          do:
            assert(
              {:error, %Error{reason: {:invalid, %{^key => _}}}} = page(context, %{key => list})
            )
    end

    test "is filtered and paged", context do
      {:ok, %{entries: failed, next: nil}} = page(context, %{states: [:failed]})
      assert length(failed) == 4
      assert Enum.all?(failed, &(&1.webhook_id == context.bad.id and &1.last_status == 500))
      {:ok, %{entries: [_, _, _, _, _]}} = page(context, webhook_id: context.good.id)
      {:ok, %{entries: []}} = page(context, goal_id: 99)
      {:ok, %{entries: [_, _, _, _]}} = page(context, %{status_class: 5})
      {:ok, %{entries: []}} = page(context, since_ms: DateTime.add(DateTime.utc_now(), 60))

      {:ok, %{entries: first, next: next}} = page(context, %{}, %{limit: 5})
      {:ok, %{entries: second, next: nil}} = page(context, %{}, limit: 5, after: next)
      ids = Enum.map(first ++ second, & &1.id)
      assert length(Enum.uniq(ids)) == 9
    end

    test "names the wrong filter or page option", context do
      for {filters, page, field} <- [
            {%{states: [:lost]}, %{}, :states},
            {%{states: []}, %{}, :states},
            {%{types: ["nonsense"]}, %{}, :types},
            {%{color: :red}, %{}, :color},
            {%{webhook_id: 1}, %{}, :webhook_id},
            {%{since_ms: "today"}, %{}, :since_ms},
            {%{status_class: 7}, %{}, :status_class},
            {%{}, %{limit: 0}, :limit},
            {%{}, %{bodies: 1}, :bodies},
            {%{}, %{limit: 201}, :limit},
            {%{}, %{after: 7}, :after},
            {%{}, %{page: 2}, :page}
          ] do
        assert {:error, %Error{reason: {:invalid, %{^field => _}}}} = page(context, filters, page)
      end

      assert {:error, _} = page(context, %{}, %{after: "garbage"})
    end

    test "one delivery with its body, and its attempts", context do
      {:ok, %{entries: [%{id: id} | _]}} = page(context, %{states: [:failed]})
      assert %{body: ~s({"type":"goal.completed"})} = logged(context, id)
      assert [%Attempt{number: 1, status: 500, error: :http_status}] = attempts(context, id)

      assert {:error, %Error{reason: :not_found}} =
               API.delivery(context.name, :owner, 1, "msg_none")

      assert {:error, %Error{reason: :not_found}} =
               API.attempts(context.name, :owner, 1, "msg_none")

      assert {:error, %Error{reason: :not_found}} = redeliver(context, "msg_none")
    end

    test "recover brings back what failed since then, bounded", context do
      stop!(context)
      context = start!(context, retry_delays_ms: [], recover_max: 3)
      HttpReceiver.script(context.receiver, "/bad", [200])
      ids = MapSet.new(for d <- all_deliveries(context), d.state == :failed, do: d.id)
      in_an_hour = DateTime.add(DateTime.utc_now(), 3_600)
      assert {:ok, %{count: 0, more?: false}} = recover(context, context.bad.id, in_an_hour)
      an_hour_ago = DateTime.add(DateTime.utc_now(), -3_600)
      assert {:ok, %{count: 3, more?: true}} = recover(context, context.bad.id, an_hour_ago)
      eventually(fn -> Enum.count(all_deliveries(context), &(&1.state == :failed)) == 1 end)
      assert {:ok, %{count: 1, more?: false}} = recover(context, context.bad.id, 0)
      eventually(fn -> Enum.all?(all_deliveries(context), &(&1.state == :delivered)) end)
      assert HttpReceiver.ids(context.receiver, "/bad") == ids

      assert {:error, %Error{reason: {:invalid, %{since: _}}}} =
               recover(context, context.bad.id, "today")

      assert {:error, %Error{reason: :not_found}} = recover(context, "wh_none", 0)
    end

    test "what fails again is brought back once by one recover", context do
      assert {:ok, %{count: 4}} = recover(context, context.bad.id, 0)
      eventually(fn -> HttpReceiver.count(context.receiver, "/bad") == 8 end)
      settled!(context)
      assert HttpReceiver.count(context.receiver, "/bad") == 8
    end
  end
end
