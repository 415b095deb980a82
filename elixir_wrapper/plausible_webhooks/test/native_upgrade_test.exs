defmodule Plausible.Webhooks.NativeUpgradeTest do
  # Hot upgrades load the module anew while the old one still works.
  use ExUnit.Case, async: false

  alias Plausible.Webhooks.Native

  setup do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}])
    {:ok, port} = :inet.port(listener)
    spawn_link(fn -> accept(listener) end)
    %{port: port}
  end

  defp accept(listener) do
    with {:ok, socket} <- :gen_tcp.accept(listener) do
      pid = spawn(fn -> receive(do: (:go -> serve(socket))) end)
      :gen_tcp.controlling_process(socket, pid)
      send(pid, :go)
      accept(listener)
    end
  end

  defp serve(socket) do
    with {:ok, _request} <- :gen_tcp.recv(socket, 0, 10_000),
         :ok <- :gen_tcp.send(socket, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n") do
      serve(socket)
    end
  end

  defp load_again do
    {Native, binary, file} = :code.get_object_code(Native)
    # False when a process still runs old code: it would be killed by purge.
    :code.soft_purge(Native)
    assert {:module, Native} = :code.load_binary(Native, file, binary)
  end

  defp collect(engine, wanted, attempts) do
    if length(attempts) >= wanted do
      attempts
    else
      {:ok, more} = Native.run_once(engine, 100)
      collect(engine, wanted, attempts ++ more)
    end
  end

  test "an engine survives loading the module again, twice, with a purge", %{port: port} do
    {:ok, engine} = Native.engine_start(%{policy: %{https_only: false, allow: ["127.0.0.0/8:*"]}})

    {:ok, secret} = Native.generate_secret()

    :ok =
      Native.put_endpoint(engine, %{
        webhook_id: "wh_1",
        url: "http://127.0.0.1:#{port}/",
        keys: [secret]
      })

    for round <- 1..3 do
      {:ok, 20} =
        Native.submit(
          engine,
          for(n <- 1..20, do: %{id: "msg_#{round}_#{n}", webhook_id: "wh_1", body: "{}"})
        )

      {:ok, first} = Native.run_once(engine, 100)
      load_again()
      attempts = collect(engine, 20, first)
      assert length(attempts) == 20
      assert Enum.all?(attempts, &(&1.state == :delivered))
    end

    assert {:ok, []} = Native.engine_stop(engine, 0)
  end

  test "a library with another contract is refused and the old one stays" do
    path = :filename.join(:code.priv_dir(:plausible_webhooks), ~c"plausible_webhooks_nif")
    # Only the module itself may load it; from here it must be refused cleanly.
    assert {:error, {_reason, _text}} = :erlang.load_nif(path, 999)
    assert {:ok, "whsec_" <> _} = Native.generate_secret()
  end
end
