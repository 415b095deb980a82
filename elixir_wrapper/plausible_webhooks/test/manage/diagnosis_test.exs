defmodule Plausible.Webhooks.Manage.DiagnosisTest do
  use Plausible.Webhooks.Test.InstanceCase, async: true

  import ExUnit.CaptureLog

  alias Plausible.Webhooks, as: API
  alias Plausible.Webhooks.Runtime.Observers

  defp diagnose(context) do
    {:ok, diagnosis} = API.diagnose(context.name, :owner, 1, context.webhook.id)
    diagnosis
  end

  @tag start: [retry_delays_ms: [60_000], park_after_ms: 0]
  test "a diagnosis says what happened, what waits, and what to do", context do
    assert %{state: :quiet, waiting: 0, next_attempt_at: nil, attempts: []} = diagnose(context)

    [id] = push(context, [delivery(context.webhook)])
    await_state(context, id, :delivered)
    assert %{state: :delivering, attempts: [%{status: 200, error: nil}]} = diagnose(context)

    HttpReceiver.script(context.receiver, "/hook", [503])
    [id] = push(context, [delivery(context.webhook)])
    await_state(context, id, :parked)
    eventually(fn -> diagnose(context).failing_since end)
    diagnosis = diagnose(context)
    assert %{state: :failing, destination: "127.0.0.1", waiting: 1} = diagnosis
    assert diagnosis.why =~ "the last attempt failed: 503"
    assert [%{delivery_id: ^id, status: 503, number: 1}, %{status: 200}] = diagnosis.attempts
    assert DateTime.diff(diagnosis.next_attempt_at, DateTime.utc_now()) in 0..60
    refute inspect(diagnosis) =~ "/hook"

    {:ok, _} = disable_webhook(context, context.webhook.id)
    assert %{state: :off} = diagnose(context)
  end

  @tag start: []
  test "a webhook that we disabled says why", context do
    HttpReceiver.script(context.receiver, "/hook", [410])
    push(context, [delivery(context.webhook)])
    eventually(fn -> diagnose(context).state == :disabled end)
    assert diagnose(context).why =~ "answered 410"
  end

  @tag start: []
  test "a diagnosis needs the permission to read", %{name: name, webhook: %{id: id}} do
    assert {:error, %{reason: :forbidden}} = API.diagnose(name, :nobody, 1, id)
    assert {:error, %{reason: :not_found}} = API.diagnose(name, :other, 2, id)
    assert {:ok, _diagnosis} = API.diagnose(name, :viewer, 1, id)
  end

  @tag start: []
  test "health names what is wrong with this node", context do
    eventually(fn -> API.health(context.name) == :ok end)
    SwitchStore.set(context.switch, :away)
    assert API.health(context.name) == {:degraded, [:store]}
    SwitchStore.set(context.switch, :on)
    assert API.health(context.name) == :ok
    assert API.health(:absent) == {:degraded, [:not_running]}
  end

  test "the log has one line when a webhook begins to fail and one when it has recovered",
       context do
    context = start!(context, retry_delays_ms: [10, 10, 10])
    webhook = webhook!(context, "/secret-path")
    HttpReceiver.script(context.receiver, "/secret-path", [503, 503, 200, 503, 200])

    log =
      capture_log(fn ->
        for _ <- 1..2 do
          [id] = push(context, [delivery(webhook)])
          await_state(context, id, :delivered)

          eventually(fn ->
            API.diagnose(context.name, :owner, 1, webhook.id)
            |> elem(1)
            |> Map.get(:failing_since) == nil
          end)
        end

        stop!(context)
      end)

    about = "webhooks: #{webhook.id} (127.0.0.1) of site 1"
    assert length(String.split(log, "#{about} begins to fail")) == 2
    assert length(String.split(log, "#{about} has recovered")) == 2
    refute log =~ "secret-path"
  end

  @tag start: []
  test "a thousand webhooks that fail at once write at most 20 lines a minute", context do
    observers = Instance.process(context.name, :observers)

    log =
      capture_log(fn ->
        for n <- 1..1_000,
            do: Observers.failing(context.instance, %{context.webhook | id: "wh_#{n}"})

        # As if the minute were over.
        :sys.replace_state(observers, &%{&1 | minute: &1.minute - 60_000})
        send(observers, :report)
        :sys.get_state(observers)
      end)

    assert length(String.split(log, "begins to fail")) == 21
    assert log =~ "webhooks: 980 more webhooks began to fail or recovered"
  end

  describe "backup" do
    defp real_store(context) do
      {SwitchStore, options} = options(context)[:store]
      start!(context, store: options[:inner])
    end

    test "is a whole database with the webhooks and the log, for its user only", context do
      context = real_store(context)
      webhook = webhook!(context, "/hook")
      [id] = push(context, [delivery(webhook)])
      await_state(context, id, :delivered)

      copy = Path.join(context.dir, "copy.db")
      assert API.backup(context.name, copy) == :ok
      assert Bitwise.band(File.stat!(copy).mode, 0o777) == 0o600
      {:ok, _} = delete_webhook(context, webhook.id) |> then(&{:ok, &1})

      stop!(context)
      store = {Plausible.Webhooks.Store.SQLite, path: copy, name: :"#{context.name}_copy"}
      context = start!(context, store: store)
      assert {:ok, [%{id: same}]} = list_webhooks(context)
      assert same == webhook.id
      assert logged(context, id).state == :delivered
    end

    test "never overwrites a file, and is not there for other stores", context do
      file = Path.join(context.dir, "there")
      File.write!(file, "mine")
      context = real_store(context)
      assert {:error, %{reason: {:file, ^file, :eexist}}} = API.backup(context.name, file)
      assert File.read!(file) == "mine"
      stop!(context)

      context = start!(context)
      assert {:error, %{reason: :not_supported}} = API.backup(context.name, file <> "2")
    end
  end
end
