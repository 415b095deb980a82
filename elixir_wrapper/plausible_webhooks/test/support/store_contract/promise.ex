defmodule Plausible.Webhooks.StoreContract.Promise do
  @moduledoc false
  # What the tests of the contract call. The callbacks of the store can be called by their
  # names, with the store as first argument.

  alias Plausible.Webhooks.{Attempt, Delivery, Id, Store, Webhook}

  defmacro __using__(about: about) do
    quote do
      use Plausible.Webhooks.Test.SharedTests
      import Plausible.Webhooks.StoreContract.Promise

      alias Plausible.Webhooks.{Attempt, Delivery, Webhook}

      def about, do: unquote(about)
    end
  end

  for {name, arity} <- Store.behaviour_info(:callbacks), name not in [:init, :child_spec] do
    arguments = Macro.generate_arguments(arity - 1, __MODULE__)

    def unquote(name)({module, handle, _webhooks_max}, unquote_splicing(arguments)),
      do: module.unquote(name)(handle, unquote_splicing(arguments))
  end

  @doc "How many webhooks the store holds per site."
  def webhooks_max({_module, _handle, webhooks_max}), do: webhooks_max

  # --- what tests are made of

  @now_ms 1_790_000_000_000

  @doc "The counts of a store without deliveries."
  def no_counts do
    %{
      held: 0,
      pending: 0,
      parked: 0,
      delivered: 0,
      failed: 0,
      cancelled: 0,
      oldest_due_ms: nil
    }
  end

  @doc "A webhook with something in every field."
  def a_webhook(fields \\ []) do
    struct!(
      %Webhook{
        id: Id.webhook(),
        site_id: 1,
        name: "Zapier",
        url: "https://hooks.example.com/services/T0/B1?key=s3cret",
        events: ["goal.completed", "traffic.spike"],
        goals: [3, 1, 2],
        spike_threshold: 300,
        headers: [{"X-Token", "s3cret"}, {"x-b", "2"}],
        secrets: [%{key: "whsec_s3cret", created_at_ms: 7, expires_at_ms: nil}],
        inserted_at_ms: @now_ms,
        updated_at_ms: @now_ms
      },
      fields
    )
  end

  def insert!(store, fields \\ []) do
    webhook = a_webhook(fields)
    :ok = insert_webhook(store, webhook)
    webhook
  end

  @doc "A pending delivery of owner \"a\"."
  def a_delivery(fields \\ []) do
    struct!(
      %Delivery{
        id: Id.delivery(),
        webhook_id: "wh_1",
        site_id: 1,
        type: "goal.completed",
        goal_id: 3,
        body: ~s({"type":"goal.completed"}),
        owner: "a",
        created_at_ms: @now_ms
      },
      fields
    )
  end

  def accept!(store, fields \\ []) do
    delivery = a_delivery(fields)
    :ok = accept(store, [delivery])
    delivery
  end

  @doc "A first attempt that was delivered."
  def an_attempt(%Delivery{} = delivery, fields \\ []) do
    struct!(
      %Attempt{
        delivery_id: delivery.id,
        webhook_id: delivery.webhook_id,
        number: 1,
        state: :delivered,
        status: 200,
        started_at_ms: @now_ms,
        response_body: "ok"
      },
      fields
    )
  end

  @doc "The state of an armed alert for spikes."
  def an_alert(fields) do
    Map.merge(
      %{
        webhook_id: "wh_1",
        kind: :spike,
        state: :armed,
        alert_id: nil,
        visitors: 512,
        threshold: 300,
        seen_at_ms: nil,
        calm_since_ms: nil,
        changed_at_ms: 1,
        notified_at_ms: nil
      },
      Map.new(fields)
    )
  end

  def failed(delivery, number, fields \\ []) do
    fields =
      Keyword.merge([number: number, state: :failed, status: 500, error: :http_status], fields)

    an_attempt(delivery, fields)
  end

  def get!(store, %Delivery{id: id}), do: get!(store, id)

  def get!(store, id) do
    {:ok, delivery} = get_delivery(store, id)
    delivery
  end

  def state(store, delivery), do: get!(store, delivery).state

  @states [:pending, :parked, :delivered, :failed, :cancelled]

  @doc "The deliveries that are the owner's now; no other node had one."
  def redeliver!(store, owner, ids, states \\ @states) do
    {:ok, %{taken: taken, requested: []}} = redeliver(store, owner, ids, states)
    taken
  end

  def ids(deliveries), do: Enum.map(deliveries, & &1.id)

  @doc "Runs the functions at the same time; their results in order."
  def at_once(functions) do
    gate = make_ref()

    tasks =
      for function <- functions do
        Task.async(fn ->
          receive do: (^gate -> function.())
        end)
      end

    Enum.each(tasks, &send(&1.pid, gate))
    Task.await_many(tasks, 60_000)
  end

  @doc "Bytes that stores trip over."
  def odd_bytes do
    [
      "",
      <<0>>,
      <<"a", 0, "b">>,
      <<255>>,
      <<0xC3>>,
      <<0xED, 0xA0, 0x80>>,
      "'); DROP TABLE deliveries; --",
      ~s("\\%_\r\n\t),
      "ä 中 🦊 \u202E e\u0301",
      "\\x41",
      "NULL",
      :binary.list_to_bin(Enum.to_list(0..255))
    ]
  end
end
