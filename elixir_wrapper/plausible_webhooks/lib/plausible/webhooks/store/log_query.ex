defmodule Plausible.Webhooks.Store.LogQuery do
  @moduledoc """
  A query of the log, the same for every store: it checks the filters, knows where a page
  begins and ends, and limits how far one call walks along an index.

  A filter may match nothing among millions of deliveries. A store therefore walks along
  an index in slices, each a statement of its own, so that other callers need not wait.
  After 100 000 rows or a second the walk ends with what it found, and the page's cursor is
  where it stopped.
  """

  alias Plausible.Webhooks.Store
  alias Plausible.Webhooks.Store.Columns

  @limit_max 200
  @limit_default 50
  @types_max 32
  @walk_rows_max 100_000
  @walk_ms_max 1_000
  @int64_max 9_223_372_036_854_775_807

  @typedoc "Where a row stands in the log: `{created_at_ms, seq}`."
  @type place :: {integer(), non_neg_integer()}

  @typedoc """
  `filters` are valid; states are codes (`Plausible.Webhooks.Store.Columns.state_code/1`)
  and no list holds a value twice. `nothing?`: an empty list among them matches no row.
  """
  @type t :: %{
          filters: [{atom(), term()}],
          nothing?: boolean(),
          limit: 1..200,
          after: place() | nil
        }

  @typedoc "How many rows each slice looks at: at first, and at most. It doubles in between."
  @type sizes :: {pos_integer(), pos_integer()}

  @doc """
  Checks filters and page.

      iex> alias Plausible.Webhooks.Store.LogQuery
      iex> LogQuery.new(%{states: [:failed, :failed]}, %{})
      {:ok, %{filters: [states: [3]], nothing?: false, limit: 50, after: nil}}
      iex> LogQuery.new(%{color: "red"}, %{})
      {:error, {:invalid_filter, :color}}
  """
  @spec new(Store.filters(), Store.page()) ::
          {:ok, t()}
          | {:error, {:invalid_filter, term()} | :invalid_limit | :invalid_cursor}
  def new(filters, page) do
    with {:ok, limit} <- limit(Map.get(page, :limit, @limit_default)),
         {:ok, place} <- place(Map.get(page, :after)),
         {:ok, filters} <- filters(Map.to_list(filters), []) do
      nothing? = Enum.any?(filters, &match?({_key, []}, &1))
      {:ok, %{filters: filters, nothing?: nothing?, limit: limit, after: place}}
    end
  end

  defp limit(limit) when limit in 1..@limit_max, do: {:ok, limit}
  defp limit(_other), do: {:error, :invalid_limit}

  defp filters([], valid), do: {:ok, Enum.reverse(valid)}

  defp filters([{key, value} | rest], valid) do
    case filter(key, value) do
      {:ok, value} -> filters(rest, [{key, value} | valid])
      :error -> {:error, {:invalid_filter, key}}
    end
  end

  defp filter(:webhook_id, id) when is_binary(id), do: {:ok, id}

  defp filter(key, value)
       when key in [:goal_id, :since_ms, :until_ms] and value in -@int64_max..@int64_max,
       do: {:ok, value}

  defp filter(:status_class, class) when class in [:none, 2, 3, 4, 5], do: {:ok, class}

  defp filter(:types, types) when is_list(types) do
    types = Enum.uniq(types)

    if length(types) <= @types_max and Enum.all?(types, &is_binary/1),
      do: {:ok, types},
      else: :error
  end

  defp filter(:states, states) when is_list(states) do
    codes = states |> Enum.uniq() |> Enum.map(&Columns.state_code/1)
    if :error in codes, do: :error, else: {:ok, Enum.map(codes, &elem(&1, 1))}
  end

  defp filter(_key, _value), do: :error

  # --- walking

  @doc """
  Walks in slices from `place` until there are `wanted` rows, the index ends, or the walk
  has taken long enough.

  `slice` gets a place, the rows still wanted and the slice's size. It returns those rows of
  the slice that match, and the place of the slice's last row, or `nil` if the index ended.
  The walk returns the rows and the place where it was given up, or `nil` if it reached the
  end. An `:unbounded` walk is never given up.
  """
  @spec walk(
          place() | nil,
          pos_integer(),
          sizes(),
          :bounded | :unbounded,
          (place() | nil, pos_integer(), pos_integer() ->
             {:ok, [row], place() | nil} | {:error, term()})
        ) :: {:ok, [row], place() | nil} | {:error, term()}
        when row: term()
  def walk(place, wanted, {size, size_max}, bounded, slice) do
    bounds = %{
      size: size,
      size_max: size_max,
      rows: if(bounded == :bounded, do: @walk_rows_max, else: :infinity),
      deadline_ms: if(bounded == :bounded, do: monotonic_ms() + @walk_ms_max, else: :infinity)
    }

    slices(place, wanted, bounds, slice, [])
  end

  # In Erlang's term order :infinity is greater than any number.
  defp slices(place, wanted, bounds, slice, found) do
    size = min(bounds.size, bounds.rows)

    with {:ok, rows, slice_end} <- slice.(place, wanted, size) do
      found = [rows | found]
      left = if bounds.rows == :infinity, do: :infinity, else: bounds.rows - size

      cond do
        slice_end == nil or length(rows) == wanted ->
          {:ok, in_order(found), nil}

        left == 0 or monotonic_ms() >= bounds.deadline_ms ->
          {:ok, in_order(found), slice_end}

        true ->
          bounds = %{bounds | size: min(2 * bounds.size, bounds.size_max), rows: left}
          slices(slice_end, wanted - length(rows), bounds, slice, found)
      end
    end
  end

  defp in_order(found), do: found |> Enum.reverse() |> Enum.concat()
  defp monotonic_ms, do: System.monotonic_time(:millisecond)

  # --- pages

  @doc """
  The page made of these rows, of which there is one more than `limit` if another page
  follows. `stopped_at` is where the walk was given up.
  """
  @spec page(t(), [row], place() | nil, (row -> place()), (row -> entry)) ::
          Store.page_of(entry)
        when row: term(), entry: term()
  def page(%{limit: limit}, rows, stopped_at, place_of, to_entry) do
    next =
      case Enum.drop(rows, limit - 1) do
        [last, _one_more] -> place_of.(last)
        _no_more -> stopped_at
      end

    %{entries: rows |> Enum.take(limit) |> Enum.map(to_entry), next: next && cursor(next)}
  end

  defp cursor({created_at_ms, seq}),
    do: Base.url_encode64("#{created_at_ms}:#{seq}", padding: false)

  defp place(nil), do: {:ok, nil}

  defp place(cursor) when is_binary(cursor) do
    with {:ok, text} <- Base.url_decode64(cursor, padding: false),
         [ms, seq] <- String.split(text, ":"),
         {ms, ""} when ms in -@int64_max..@int64_max <- Integer.parse(ms),
         {seq, ""} when seq in 0..@int64_max <- Integer.parse(seq) do
      {:ok, {ms, seq}}
    else
      _other -> {:error, :invalid_cursor}
    end
  end

  defp place(_other), do: {:error, :invalid_cursor}
end
