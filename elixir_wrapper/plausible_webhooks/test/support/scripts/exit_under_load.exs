# Run by native_exit_test in a VM of its own: puts every NIF that uses OpenSSL or
# curl under load and then ends the VM the given way.
alias Plausible.Webhooks.Native

[how, port, ca_file, after_ms] = System.argv()

# A target that never answers must not leave this VM behind.
:timer.apply_after(120_000, :erlang, :halt, [3, [flush: false]])

policy = %{https_only: true, allow: ["127.0.0.0/8:*"]}

{:ok, engine} =
  Native.engine_start(%{
    policy: policy,
    ca_file: ca_file,
    lane_in_flight_max: 16,
    lane_rate_per_s: 1_000_000,
    destination_rate_per_s: 1_000_000
  })

{:ok, secret} = Native.generate_secret()

for n <- 1..8 do
  :ok =
    Native.put_endpoint(engine, %{
      webhook_id: "wh_#{n}",
      url: "https://127.0.0.1:#{port}/#{n}",
      keys: [secret]
    })
end

submit = fn submit, n ->
  Native.submit(
    engine,
    for(m <- 1..8, do: %{id: "msg_#{n}_#{m}", webhook_id: "wh_#{m}", body: "{}"})
  )

  if rem(n, 64) == 0, do: Process.sleep(1)
  submit.(submit, n + 1)
end

sign = fn sign ->
  {:ok, _} = Native.sign([secret], "msg_1", 1, "{}")
  {:ok, _} = Native.generate_secret()
  {:ok, _} = Native.check_url("https://example.com/", policy)
  {:ok, _} = Native.encode(%{"a" => [1, 2.5, "x"]})
  sign.(sign)
end

# Large bodies are signed on dirty schedulers, which nobody stops at the end.
large = :binary.copy(<<7>>, 300_000)

sign_large = fn sign_large ->
  {:ok, _} = Native.sign([secret], "msg_1", 1, large)
  sign_large.(sign_large)
end

for _ <- 1..4, do: spawn(fn -> sign_large.(sign_large) end)

owner = self()
spawn(fn -> submit.(submit, 1) end)
for _ <- 1..2, do: spawn(fn -> sign.(sign) end)

spawn(fn ->
  # Only once deliveries really come through: otherwise the test shows nothing.
  receive(do: (:busy -> Process.sleep(String.to_integer(after_ms))))

  case how do
    "halt" -> System.halt(0)
    "halt_noflush" -> :erlang.halt(0, flush: false)
    "init_stop" -> :init.stop(0)
  end
end)
|> then(fn ender ->
  drive = fn drive, told ->
    case Native.run_once(engine, 100) do
      {:ok, attempts} ->
        delivered = Enum.any?(attempts, &(&1.state == :delivered))
        if delivered and not told, do: send(ender, :busy)
        drive.(drive, told or delivered)

      {:error, :stopped} ->
        Process.sleep(:infinity)
    end
  end

  true = owner == self()
  drive.(drive, false)
end)
