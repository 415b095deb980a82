defmodule Plausible.Webhooks.Test.DeliveryRun do
  @moduledoc false
  # Carries out the commands of `Plausible.Webhooks.Test.DeliveryMachine` on a real instance: the
  # engine, a SQLite file, and a receiver that counts POSTs and checks their signatures. At the
  # end `judge/1` holds the log against what was accepted and what the receiver has seen.
  #
  # The node is this VM (`:here`: its death kills every process of the instance at once) or a
  # VM of its own (`:peer`: its death is `kill -9`). What happens in the node is in
  # `Plausible.Webhooks.Test.DeliveryNode`.
  #
  # A run belongs to the process that started it.

  import Plausible.Webhooks.Test.Eventually

  alias Plausible.Webhooks.{Delivery, Id}
  alias Plausible.Webhooks.Test.{DeliveryNode, HttpReceiver, OtherVm}

  @secret "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
  @paths ["/first", "/second"]
  @ends [:delivered, :failed, :cancelled]
  @settle_ms 90_000

  # posts: {id, POSTs, 2xx answers among them, POSTs with a wrong signature}, {{:script, id},
  # answers}. A delivery's `hidden`: how many POSTs a death may have taken from the record.
  # `posts_max`: how many POSTs there may be while its webhook is off or deleted.

  @doc "What all runs of a worker share."
  def worker(number) do
    posts = :ets.new(__MODULE__, [:public])
    receiver = HttpReceiver.start!(keep: false)
    for path <- @paths, do: HttpReceiver.script(receiver, path, [&answer(posts, &1)])
    name = :"webhooks_machine_#{number}"
    %{name: name, posts: posts, receiver: receiver, authority: authority()}
  end

  defp answer(posts, request) do
    id = request.headers["webhook-id"]
    wrong = if HttpReceiver.verify(request, [@secret]), do: 0, else: 1
    [number, _wrong] = :ets.update_counter(posts, id, [{2, 1}, {4, wrong}], {id, 0, 0, 0})
    [{_key, script}] = :ets.lookup(posts, {:script, id})
    answer = Enum.at(script, number - 1, 200)
    if answer in [200, 204, {:delay, 5, 200}], do: :ets.update_counter(posts, id, {3, 1})
    answer
  end

  def start(worker, place) do
    :ets.delete_all_objects(worker.posts)
    dir = Path.join(System.tmp_dir!(), "#{worker.name}-#{System.pid()}")
    File.rm_rf!(dir)
    File.mkdir_p!(dir)
    File.write!(Path.join(dir, "ca.pem"), worker.authority)
    run = Map.merge(worker, %{dir: dir, place: place, webhooks: %{}, deliveries: %{}})
    put(start_node(run))
  end

  # An engine that loads the system's hundred authorities takes a fifth of a second to start.
  defp authority do
    %{cert: certificate} = :public_key.pkix_test_root_cert(~c"machine", [])
    :public_key.pem_encode([{:Certificate, certificate, :not_encrypted}])
  end

  def stop do
    run = get()
    end_node(run)
    File.rm_rf!(run.dir)
  end

  defp get, do: Process.get(__MODULE__)

  defp put(run) do
    Process.put(__MODULE__, run)
    run
  end

  # --- the node

  defp start_node(%{place: :peer} = run), do: start_node(%{run | place: OtherVm.start!()})

  defp start_node(run) do
    :ok = node(run, :start, [run.name, run.dir])
    run
  end

  # Where the next one starts.
  defp end_node(%{place: %OtherVm{} = vm}) do
    OtherVm.kill(vm)
    :peer
  end

  defp end_node(run) do
    DeliveryNode.die(run.name)
    :here
  end

  defp node(run, function, arguments), do: call(run, DeliveryNode, function, arguments)

  defp api(run, function, arguments),
    do: result(call(run, Plausible.Webhooks, function, [run.name, :owner, 1 | arguments]))

  defp result(:ok), do: :ok
  defp result({:ok, _found}), do: :ok

  defp result({:error, %{reason: reason}}) when reason in [:not_running, :timeout],
    do: :unavailable

  defp result({:error, %{reason: reason}}), do: reason

  defp call(%{place: %OtherVm{} = vm}, module, function, arguments),
    do: OtherVm.call(vm, module, function, arguments)

  defp call(%{place: :here}, module, function, arguments),
    do: apply(module, function, arguments)

  # --- commands

  @doc "An exception is a result like any other: PropEr does not survive one."
  def carry_out(command, arguments) do
    apply(__MODULE__, command, arguments)
  rescue
    error -> {:raised, Exception.format(:error, error, __STACKTRACE__)}
  end

  def create(slot) do
    run = get()
    attributes = Map.merge(attributes(run, slot), %{events: ["goal.completed"], secret: @secret})
    arguments = [run.name, :owner, 1, attributes]

    with {:ok, webhook} <- call(run, Plausible.Webhooks, :create_webhook, arguments) do
      put(put_in(run.webhooks[slot], webhook.id))
      :ok
    end
  end

  def put(slot, path), do: of_webhook(slot, :update_webhook, [attributes(get(), path)])

  defp attributes(run, n),
    do: %{url: HttpReceiver.url(run.receiver, Enum.at(@paths, rem(n, 2)))}

  def delete(slot), do: slot |> of_webhook(:delete_webhook, []) |> switched_off(slot, :deleted)
  def pause(slot), do: slot |> of_webhook(:disable_webhook, []) |> switched_off(slot, :off)

  # What is in flight may arrive.
  defp switched_off(result, slot, status) do
    run = get()

    change(slot, fn delivery ->
      %{delivery | status: status, posts_max: posts(run, delivery) + 1, cancelled?: true}
    end)

    result
  end

  def resume(slot) do
    result = of_webhook(slot, :enable_webhook, [])
    change(slot, &%{&1 | status: :on, posts_max: nil})
    result
  end

  def cancel_held(slot), do: of_webhook(slot, :cancel_held, [])

  def recover(slot) do
    change(slot, &redelivered/1)
    of_webhook(slot, :recover, [0])
  end

  def redeliver(number) do
    run = get()
    delivery = run.deliveries[number]
    if delivery.status == :on, do: put(put_in(run.deliveries[number], redelivered(delivery)))
    api(run, :redeliver, [delivery.id])
  end

  defp redelivered(delivery),
    do: %{delivery | redeliveries: delivery.redeliveries + 1, posts_max: nil}

  defp of_webhook(slot, function, arguments) do
    run = get()
    api(run, function, [Map.fetch!(run.webhooks, slot) | arguments])
  end

  defp change(slot, fun) do
    webhook_id = get().webhooks[slot]
    change(&if(&1.webhook_id == webhook_id, do: fun.(&1), else: &1))
  end

  defp change(fun) do
    run = get()
    put(%{run | deliveries: Map.new(run.deliveries, fn {key, one} -> {key, fun.(one)} end)})
  end

  def submit(slot, script) do
    number = Enum.count(Map.keys(get().deliveries), &is_integer/1) + 1
    delivery = add(number, slot, script)
    run = get()
    node(run, :accept, [run.name, [delivery]])
  end

  # Nobody is told what becomes of these: a death may take them.
  def push(slot, count, script) do
    deliveries = for n <- 1..count, do: add({:pushed, System.unique_integer(), n}, slot, script)
    run = get()
    node(run, :push, [run.name, deliveries])
  end

  defp add(key, slot, script) do
    run = get()
    webhook_id = Map.fetch!(run.webhooks, slot)
    status = status(run, slot)
    id = Id.delivery()
    :ets.insert(run.posts, [{{:script, id}, script}, {id, 0, 0, 0}])

    facts = %{
      id: id,
      webhook_id: webhook_id,
      status: status,
      cancelled?: status != :on,
      posts_max: if(status != :on, do: 0),
      redeliveries: 0,
      hidden: 0,
      may_be_missing?: false
    }

    put(put_in(run.deliveries[key], facts))

    %Delivery{
      id: id,
      webhook_id: webhook_id,
      site_id: 1,
      type: "goal.completed",
      goal_id: 12,
      body: ~s({"type":"goal.completed"}),
      created_at_ms: System.system_time(:millisecond)
    }
  end

  def wait(ms), do: Process.sleep(ms)

  # What is in flight when the engine dies may be sent and is not on record.
  def kill(part) do
    run = get()
    if part == :engine, do: change_open(log(run), &%{&1 | hidden: &1.hidden + 1})
    node(run, :kill, [run.name, part])
  end

  def restart do
    run = get()
    :ok = node(run, :stop, [run.name])
    put(start_node(run))
    :ok
  end

  # A node takes everything with it that was not recorded yet, and what nobody was told was
  # accepted. A delivery that was in flight when its owner's lease ended may have been cancelled.
  def die do
    run = get()
    log = log(run)

    recorded =
      Map.new(log, fn {delivery, attempts} ->
        {delivery.id, Enum.count(attempts, &(&1.number > 0))}
      end)

    place = end_node(run)

    change(fn delivery ->
      unrecorded = posts(run, delivery) - Map.get(recorded, delivery.id, 0)
      %{delivery | hidden: max(unrecorded, 0)}
    end)

    change_open(log, &%{&1 | hidden: &1.hidden + 1, may_be_missing?: true})
    put(start_node(%{get() | place: place}))
    :ok
  end

  # Those that had not ended.
  defp change_open(log, fun) do
    ended = for {delivery, _attempts} <- log, delivery.state in @ends, do: delivery.id
    change(&if(&1.id in ended, do: &1, else: fun.(&1)))
  end

  # --- the verdict

  @doc "What is short of the promise, as text; `[]`: nothing."
  def judge(_started) do
    run = get()

    try do
      eventually(fn -> node(run, :idle?, [run.name]) end, @settle_ms)
    rescue
      ExUnit.AssertionError -> :not_idle
    end

    log = Map.new(log(run), fn {delivery, attempts} -> {delivery.id, {delivery, attempts}} end)
    counts = node(run, :counts, [run.name])
    rows = Enum.frequencies_by(Map.values(log), fn {delivery, _attempts} -> delivery.state end)

    check(Map.merge(counts, rows) == counts and Enum.sum(Map.values(counts)) == map_size(log), [
      "counts #{inspect(counts)}, rows #{inspect(rows)}"
    ]) ++
      Enum.flat_map(run.deliveries, fn {key, delivery} ->
        for text <- judge(run, key, delivery, log[delivery.id]), do: "#{inspect(key)}: #{text}"
      end)
  end

  defp judge(run, key, delivery, nil) do
    check(delivery.status == :deleted or (is_tuple(key) and delivery.may_be_missing?), ["lost"]) ++
      posts_short(run, delivery)
  end

  defp judge(run, _key, delivery, {logged, attempts}) do
    [{_id, posts, successes, wrong}] = :ets.lookup(run.posts, delivery.id)
    sent = Enum.filter(attempts, &(&1.number > 0))
    ended = Enum.count(attempts, &(&1.state in @ends))
    last = List.last(attempts)
    ends = 1 + delivery.redeliveries

    check(logged.state in @ends or held?(logged, delivery), ["still #{logged.state}"]) ++
      check(last == nil or last.state == logged.state or logged.state in [:cancelled, :held], [
        "#{logged.state}, but its last attempt says #{last && last.state}"
      ]) ++
      check(logged.state != :delivered or successes > 0, ["delivered, but no POST was answered"]) ++
      check(logged.state != :failed or sent != [] or logged.reason == "node_ended", [
        "failed without an attempt"
      ]) ++
      check(logged.state != :cancelled or delivery.cancelled?, ["cancelled by nobody"]) ++
      check(ended <= ends, ["ended #{ended} times of #{ends}"]) ++
      check(successes <= ends + delivery.hidden, ["#{successes} successes of #{ends}"]) ++
      check(posts <= length(sent) + delivery.hidden, ["#{posts} POSTs, #{length(sent)} on record"]) ++
      check(Enum.count(sent, & &1.status) <= posts, ["#{length(sent)} on record, #{posts} POSTs"]) ++
      check(Enum.uniq_by(sent, & &1.number) == sent, ["a number twice"]) ++
      check(wrong == 0, ["#{wrong} wrong signatures"]) ++
      posts_short(run, delivery)
  end

  # It waits in the store until its webhook is resumed.
  defp held?(logged, delivery), do: logged.state == :held and delivery.status == :off

  defp posts_short(_run, %{posts_max: nil}), do: []

  defp posts_short(run, delivery) do
    posts = posts(run, delivery)

    check(posts <= delivery.posts_max, [
      "#{posts} POSTs of #{delivery.posts_max} for a webhook that is #{delivery.status}"
    ])
  end

  defp posts(run, delivery), do: :ets.lookup_element(run.posts, delivery.id, 2)

  defp status(run, slot) do
    webhook_id = run.webhooks[slot]
    node(run, :status, [run.name, webhook_id])
  end

  defp log(run), do: node(run, :log, [run.name])

  defp check(true, _short), do: []
  defp check(false, short), do: short
end
