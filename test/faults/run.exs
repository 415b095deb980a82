# Prints the table of hostile peers: mix run --no-start test/faults/run.exs [KIND...]
# With words, only the rows whose kind or group contains one of them. With --together and a
# number of seconds and of rounds (20 and 3), all at once beside good webhooks.
alias Plausible.Webhooks.Faults

Logger.configure(level: :error)
{:ok, _started} = Application.ensure_all_started(:ssl)
{together, words} = Enum.split_with(System.argv(), &(&1 == "--together"))
{numbers, words} = Enum.split_with(words, &(&1 =~ ~r/^\d+$/ and together != []))
[seconds, rounds] = Enum.map(numbers, &String.to_integer/1) ++ Enum.drop([20, 3], length(numbers))

chosen? = fn row ->
  words == [] or Enum.any?(words, &String.contains?("#{row.group} #{row.kind}", &1))
end

rows = Enum.filter(Faults.rows(), chosen?)
dir = Path.join(System.tmp_dir!(), "webhooks-faults-#{System.pid()}")
File.mkdir_p!(dir)

{_pid, ref} =
  spawn_monitor(fn ->
    if together != [] do
      Faults.Together.print(rows, Faults.Together.run(rows, dir, seconds, rounds))
      exit(:normal)
    end

    results = Faults.run(rows, dir)
    Faults.Table.print(rows, results)
    short = Enum.reject(rows, &(Faults.Table.shortfalls(&1, results) == []))
    exit(if short == [] and results.product.all.short == [], do: :normal, else: :short)
  end)

receive do
  {:DOWN, ^ref, :process, _pid, reason} ->
    File.rm_rf!(dir)
    unless reason in [:normal, :short], do: IO.inspect(reason)
    # The peers that are other programs end when they see that nobody is left.
    Process.sleep(200)
    System.halt(if reason == :normal, do: 0, else: 1)
end
