defmodule Plausible.Webhooks.Ingest.Dedup do
  @moduledoc """
  Remembers what was seen, for a while and within a bound: a scroll goal completes once per
  goal, session and path.

  Two ETS tables take turns. New keys go into the current one. Every `window_ms` (30 minutes,
  as long as a Plausible session lives without activity) the older one is emptied and becomes
  the current one. So a key stays known for at least `window_ms` after it was last seen.

  Many processes ask at the same time, and none waits for another. Only
  `Plausible.Webhooks.Ingest.Directory` exchanges the tables; it looks every second whether
  it is time (`full?/1`).

  A table holds about `entries_max` keys (250 000 by default, 60 to 150 bytes each). When it
  is full before its time, the tables are exchanged early, which forgets the older half. Keys
  that arrive while it is over-full by a quarter are not remembered and count as new. So
  beyond the limit a scroll goal may be sent twice, but is never left out.

  The memory is per node: when a load balancer spreads one visit over several nodes, each of
  them may send the goal once.
  """

  @window_ms 30 * 60 * 1_000
  @entries_max 250_000

  @typedoc "A memory."
  @type t :: %__MODULE__{
          tables: {:ets.table(), :ets.table()},
          state: :atomics.atomics_ref(),
          entries_max: pos_integer()
        }

  defstruct [:tables, :state, :entries_max]

  # What the cells of `state` are.
  @current 1
  @entries 2

  @doc "How long a key stays known at least, by default."
  @spec window_ms() :: pos_integer()
  def window_ms, do: @window_ms

  @doc """
  A new memory of at most `entries_max` keys per table; the tables belong to the
  calling process.
  """
  @spec new(pos_integer()) :: t()
  def new(entries_max \\ @entries_max) do
    table = fn ->
      :ets.new(__MODULE__, [:set, :public, read_concurrency: true, write_concurrency: true])
    end

    %__MODULE__{
      tables: {table.(), table.()},
      state: :atomics.new(2, signed: true),
      entries_max: entries_max
    }
  end

  @doc "Whether this key is new; from now on it is not."
  @spec first_time?(t(), tuple()) :: boolean()
  def first_time?(%__MODULE__{tables: tables, state: state} = dedup, key) do
    key = shorten(key)
    current = :atomics.get(state, @current)
    older? = :ets.member(elem(tables, 1 - current), key)

    # The older table is asked first: two processes on both sides of a rotation may
    # then both find the key new, but never both find it old.
    cond do
      :ets.member(elem(tables, current), key) ->
        false

      not room?(dedup) ->
        not older?

      :ets.insert_new(elem(tables, current), {key}) ->
        :atomics.add(state, @entries, 1)
        not older?

      true ->
        false
    end
  end

  defp room?(%{state: state, entries_max: entries_max}),
    do: :atomics.get(state, @entries) < entries_max + div(entries_max, 4)

  @doc "Makes the key new again, because its completion was not sent."
  @spec forget(t(), tuple()) :: :ok
  def forget(%__MODULE__{tables: tables, state: state}, key) do
    key = shorten(key)
    current = :atomics.get(state, @current)
    if :ets.take(elem(tables, current), key) != [], do: :atomics.sub(state, @entries, 1)
    :ets.delete(elem(tables, 1 - current), key)
    :ok
  end

  @doc "Whether the current table is full and `rotate/1` is due before its time."
  @spec full?(t()) :: boolean()
  def full?(%__MODULE__{state: state, entries_max: entries_max}),
    do: :atomics.get(state, @entries) >= entries_max

  # Paths are up to 2 000 bytes long; 16 bytes of a digest stand for a long one.
  defp shorten(key) do
    last = tuple_size(key) - 1

    case elem(key, last) do
      path when is_binary(path) and byte_size(path) > 48 -> put_elem(key, last, :erlang.md5(path))
      path when is_binary(path) -> put_elem(key, last, :binary.copy(path))
      _other -> key
    end
  end

  @doc "Forgets the older half. One process at a time."
  @spec rotate(t()) :: :ok
  def rotate(%__MODULE__{tables: tables, state: state}) do
    older = 1 - :atomics.get(state, @current)
    :ets.delete_all_objects(elem(tables, older))
    :atomics.put(state, @entries, 0)
    :atomics.put(state, @current, older)
  end
end
