# Prints the table of hostile peers: mix run --no-start test/faults/run.exs [KIND...]
# With words, only the rows whose kind or group contains one of them. Instead of the table:
#
#   --together [SECONDS ROUNDS]  all at once beside good webhooks (20 and 3)
#   --soak [DELIVERIES MINUTES]  many deliveries, and what the VM holds meanwhile; it ends after
#                                so many minutes (1 000 000 and 60)
#   --flood [SECONDS ROUNDS]     one site's flood beside another site's events (10 and 5)
#   --one-site [SECONDS]         the memory and the log that one site can take, per case (20)
alias Plausible.Webhooks.Faults
alias Plausible.Webhooks.Faults.{Flood, Soak, Table, Together}

Logger.configure(level: :error)
{:ok, _started} = Application.ensure_all_started(:ssl)
{modes, words} = Enum.split_with(System.argv(), &String.starts_with?(&1, "--"))
{numbers, words} = Enum.split_with(words, &(modes != [] and &1 =~ ~r/^\d+$/))

numbers = fn defaults ->
  Enum.map(numbers, &String.to_integer/1) ++ Enum.drop(defaults, length(numbers))
end

chosen? = fn row ->
  words == [] or Enum.any?(words, &String.contains?("#{row.group} #{row.kind}", &1))
end

rows = Enum.filter(Faults.rows(), chosen?)
dir = Path.join(System.tmp_dir!(), "webhooks-faults-#{System.pid()}")
File.mkdir_p!(dir)

run = fn
  ["--together"] ->
    [seconds, rounds] = numbers.([20, 3])
    Together.print(rows, Together.run(rows, dir, seconds, rounds))
    []

  ["--soak"] ->
    [count, minutes] = numbers.([1_000_000, 60])
    {_samples, short} = result = Soak.run(rows, dir, count, minutes)
    Soak.print(result)
    short

  ["--flood"] ->
    [seconds, rounds] = numbers.([10, 5])
    Flood.print_beside(Flood.beside(dir, seconds, rounds))
    []

  ["--one-site"] ->
    [seconds] = numbers.([20])
    _figures = Flood.alone(rows, dir, seconds)
    []

  [] ->
    results = Faults.run(rows, dir)
    Table.print(rows, results)
    Enum.flat_map(rows, &Table.shortfalls(&1, results)) ++ results.product.all.short
end

{_pid, ref} =
  spawn_monitor(fn -> exit(if run.(modes) == [], do: :normal, else: {:shutdown, :short}) end)

receive do
  {:DOWN, ^ref, :process, _pid, reason} ->
    File.rm_rf!(dir)
    unless reason in [:normal, {:shutdown, :short}], do: IO.inspect(reason)
    # The peers that are other programs end when they see that nobody is left.
    Process.sleep(200)
    System.halt(if reason == :normal, do: 0, else: 1)
end
