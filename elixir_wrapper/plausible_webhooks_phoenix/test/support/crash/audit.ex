defmodule Plausible.Webhooks.Test.Crash.Audit do
  @moduledoc false
  # Whether everything is as it was promised: what was told, what is in the tables and
  # what arrived are held against each other.

  alias Plausible.Webhooks.Test.Crash.{Receiver, World}

  @all """
  SELECT id, state, attempts, substring(convert_from(body, 'UTF8') from '"n":"([^"]+)"')
  FROM PREFIX.webhook_deliveries LEFT JOIN PREFIX.webhook_bodies USING (seq)
  """
  @orphans """
  SELECT id, webhook_bodies.seq FROM PREFIX.webhook_deliveries AS delivery
  FULL JOIN PREFIX.webhook_bodies USING (seq) WHERE delivery.id IS NULL OR body IS NULL
  UNION ALL
  SELECT 'attempt', seq FROM PREFIX.webhook_attempts
  WHERE NOT EXISTS (SELECT 1 FROM PREFIX.webhook_deliveries AS d WHERE d.seq = webhook_attempts.seq)
  LIMIT 5
  """
  @sums """
  SELECT state, summed.n, counted.n FROM
    (SELECT state, sum(n)::bigint AS n FROM PREFIX.webhook_counts GROUP BY state) AS summed
    FULL JOIN
    (SELECT state, count(*) AS n FROM PREFIX.webhook_deliveries GROUP BY state) AS counted
    USING (state)
  WHERE coalesce(summed.n, 0) <> coalesce(counted.n, 0)
  """
  @tries 300
  @pause_ms 100

  @doc "How many deliveries are not done."
  @spec waiting(World.t()) :: non_neg_integer()
  def waiting(world) do
    [[count]] =
      rows(world, """
      SELECT (SELECT count(*) FROM PREFIX.webhook_deliveries WHERE state = 0)
        + (SELECT count(*) FROM PREFIX.webhook_deliveries WHERE state = 1)
      """)

    count
  end

  @doc "How many of them are in the hands of these owners."
  @spec held(World.t(), [String.t()]) :: non_neg_integer()
  def held(world, owners) do
    sql =
      "SELECT count(*) FROM PREFIX.webhook_deliveries WHERE state = 0 AND owner = ANY($1::text[])"

    [[count]] = rows(world, sql, [owners])
    count
  end

  @doc "How many deliveries there are, as the store itself counts them."
  @spec accepted(World.t()) :: non_neg_integer()
  def accepted(world) do
    [[count]] = rows(world, "SELECT coalesce(sum(n), 0)::bigint FROM PREFIX.webhook_counts")
    count
  end

  @doc "Who holds what is not done, for the message of a failure."
  @spec stuck(World.t()) :: String.t()
  def stuck(world) do
    rows(world, """
    SELECT state, owner, webhook_id, until_ms - (extract(epoch FROM now()) * 1000)::bigint,
      min(attempts), max(attempts), count(*), min(id),
      min(next_at_ms) - (extract(epoch FROM now()) * 1000)::bigint
    FROM PREFIX.webhook_deliveries LEFT JOIN PREFIX.webhook_owners USING (owner)
    WHERE state <= 1 GROUP BY 1, 2, 3, 4 ORDER BY 7 DESC LIMIT 5
    """)
    |> inspect()
  end

  @doc """
  What was told since the last time is in the table, what is delivered there has
  arrived, and nothing has arrived that should not have. Raises with what is wrong.
  """
  @spec check!(World.t()) :: :ok
  def check!(world) do
    since = :atomics.get(world.checked, 1)
    told = :ets.select(world.told, [{{:"$1", :"$2", :"$3"}, [{:is_binary, :"$1"}], [:"$2"]}])

    new =
      rows(world, "SELECT seq, id, state FROM PREFIX.webhook_deliveries WHERE seq > $1", [since])

    for [seq, _id, _state] <- new,
        seq > :atomics.get(world.checked, 1),
        do: :atomics.put(world.checked, 1, seq)

    delivered = for [_seq, id, 2] <- new, do: id

    []
    |> wrong("told of, and not in the table", lost(world, told))
    |> wrong("delivered, and never arrived", unarrived(world, delivered))
    |> wrong("arrived wrongly", Receiver.conflicts(world.receiver))
    |> raise_if_wrong()
  end

  @doc """
  The same for everything, once nothing is left to do; and the tables in themselves.
  Returns the counts: `:accepted`, `:delivered`, `:failed`, `:cancelled`, `:events`
  (accepted by the hook), `:told`, `:arrived` (requests) and `:duplicates`.
  """
  @spec check_all!(World.t()) :: map()
  def check_all!(world) do
    :atomics.put(world.checked, 1, 0)
    check!(world)
    all = rows(world, @all)
    states = Enum.frequencies_by(all, fn [_id, state | _rest] -> state end)
    done = Enum.sum(for state <- [2, 3, 4], do: Map.get(states, state, 0))
    early = for [id, 3, attempts, _n] <- all, attempts < attempts_min(world), do: id

    []
    |> wrong("not done", waiting(world) |> as_list())
    |> wrong("of no known state", as_list(length(all) - done))
    |> wrong("failed before its time", early)
    |> wrong("told under one id, in the table under another", renamed(world, all))
    |> wrong("events in the table twice", twice(all))
    |> wrong("without a body, or the other way round", rows(world, @orphans))
    |> wrong("sums that are not those of the table", rows(world, @sums))
    |> raise_if_wrong()

    %{
      accepted: length(all),
      delivered: Map.get(states, 2, 0),
      failed: Map.get(states, 3, 0),
      cancelled: Map.get(states, 4, 0),
      events: Enum.count(all, fn [_id, _state, _attempts, n] -> match?("e" <> _, n) end),
      told: :ets.select_count(world.told, [{{:"$1", :_, :_}, [{:is_binary, :"$1"}], [true]}]),
      arrived: Receiver.requests(world.receiver),
      duplicates: Receiver.duplicates(world.receiver)
    }
  end

  @doc "Failed deliveries whose attempts came sooner one after the other than they should."
  @spec hasty(World.t()) :: [{String.t(), integer()}]
  def hasty(world) do
    delays = world.options[:retry_delays_ms]
    # A fifth less at most, by jitter.
    least_ms = div(Enum.sum(delays) * 4, 5)

    for [id, 3, _attempts, _n] <- rows(world, @all),
        took_ms = Receiver.took_ms(world.receiver, id),
        took_ms < least_ms,
        do: {id, took_ms}
  end

  # --- what is wrong

  defp lost(world, told) do
    told
    |> Enum.chunk_every(10_000)
    |> Enum.flat_map(fn ids ->
      rows(
        world,
        """
        SELECT given.id FROM unnest($1::text[]) AS given (id)
        WHERE NOT EXISTS (
          SELECT 1 FROM PREFIX.webhook_deliveries AS delivery WHERE delivery.id = given.id)
        """,
        [ids]
      )
    end)
  end

  defp unarrived(world, delivered),
    do: Enum.reject(delivered, &Receiver.answered?(world.receiver, &1))

  defp renamed(world, all) do
    for [id, _state, _attempts, n] <- all,
        [{^n, other, _at_ms}] <- [:ets.lookup(world.told, n)],
        other != id,
        do: n
  end

  defp twice(all) do
    all
    |> Enum.frequencies_by(fn [_id, _state, _attempts, n] -> n end)
    |> Enum.filter(fn {_n, count} -> count > 1 end)
  end

  defp attempts_min(world), do: length(world.options[:retry_delays_ms]) + 1

  defp as_list(0), do: []
  defp as_list(count), do: [count]

  defp wrong(all, _what, []), do: all

  defp wrong(all, what, some),
    do: ["#{length(some)} #{what}: #{inspect(Enum.take(some, 5))}" | all]

  defp raise_if_wrong([]), do: :ok
  defp raise_if_wrong(wrong), do: raise(ExUnit.AssertionError, message: Enum.join(wrong, "\n"))

  # --- asking

  # The server may be away for reasons of the test's.
  defp rows(world, sql, params \\ [], tries \\ @tries) do
    sql = String.replace(sql, "PREFIX", ~s("#{world.prefix}"))

    case Postgrex.query(world.sql, sql, params, timeout: 60_000) do
      {:ok, %{rows: rows}} ->
        rows

      {:error, error} ->
        if tries == 0, do: raise(error)
        Process.sleep(@pause_ms)
        rows(world, sql, params, tries - 1)
    end
  end
end
