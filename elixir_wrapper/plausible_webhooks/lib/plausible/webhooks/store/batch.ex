defmodule Plausible.Webhooks.Store.Batch do
  @moduledoc false
  # Writes many rows in one transaction, and finds bad rows when the store refuses.
  #
  # A store refuses for one of two reasons. Either it is away: then everything is kept and
  # tried again. Or one row can never be written: then that row must not hold up the others.
  # Some errors can only mean the first (`Store.away?/1`). For the others a single row tells
  # the two apart: if any one row can be written, the store is there, and the rest is halved
  # until the bad rows are alone. Only a batch that has failed before is searched this way, so
  # a store that is away is asked twice per round, not a thousand times.
  #
  # One row that is written and one that is not are no proof: on a nearly full disk small rows
  # pass, and a connection may break for one of many.
  #
  # A disk that is full may have room for a part of the batch. The next call finds out whether
  # there is room for the rest.
  #
  # Writing a row twice must do no harm (the store keeps the first row with an id).

  alias Plausible.Webhooks.Store

  @type row :: term()
  @type write :: ([row()] -> :ok | {:error, term()})

  @doc """
  Writes `rows` by `write`, in one call if possible. Returns the rows that were written, and
  those that the store refused while it took another row right after. A row in neither list
  is still to be written. After `{:error, _}` nothing was written.

      iex> write = fn rows -> if :bad in rows, do: {:error, :no}, else: :ok end
      iex> Plausible.Webhooks.Store.Batch.write([1, 2, 3], write, false)
      {:ok, [1, 2, 3], []}
      iex> Plausible.Webhooks.Store.Batch.write([1, :bad, 3], write, false)
      {:error, :no}
      iex> Plausible.Webhooks.Store.Batch.write([1, :bad, 3], write, true)
      {:ok, [1, 3], [{:bad, :no}]}
      iex> write = fn rows -> if length(rows) > 2, do: {:error, :disk_full}, else: :ok end
      iex> Plausible.Webhooks.Store.Batch.write([1, 2, 3, 4, 5], write, true)
      {:ok, [1, 2], []}
  """
  @spec write([row()], write(), failed_before? :: boolean()) ::
          {:ok, written :: [row()], refused :: [{row(), term()}]} | {:error, term()}
  def write(rows, write, failed_before?) do
    case write.(rows) do
      :ok ->
        {:ok, rows, []}

      {:error, reason} when not failed_before? or length(rows) == 1 ->
        {:error, reason}

      {:error, :disk_full} ->
        rows |> Enum.take(div(length(rows), 2)) |> write(write, true)

      {:error, reason} ->
        if Store.away?(reason), do: {:error, reason}, else: probe(rows, write, reason)
    end
  end

  # The first row and a random one. With two fixed rows, two bad ones would always look like a
  # store that is away.
  defp probe([first | rest] = rows, write, reason) do
    case Enum.find([first, Enum.random(rest)], &(write.([&1]) == :ok)) do
      nil ->
        {:error, reason}

      witness ->
        {written, refused} = halve(rows, write, witness)
        {:ok, written, refused}
    end
  end

  defp halve(rows, write, witness) do
    case write.(rows) do
      :ok ->
        {rows, []}

      {:error, reason} ->
        if Store.away?(reason), do: {[], []}, else: divide(rows, write, witness, reason)
    end
  end

  # The store may go away in the middle of this: a row only counts as refused if the witness
  # can be written after it.
  defp divide([row], write, witness, reason) do
    if write.([witness]) == :ok, do: {[], [{row, reason}]}, else: {[], []}
  end

  defp divide(rows, write, witness, _reason) do
    {left, right} = Enum.split(rows, div(length(rows), 2))
    {written_left, refused_left} = halve(left, write, witness)
    {written_right, refused_right} = halve(right, write, witness)
    {written_left ++ written_right, refused_left ++ refused_right}
  end
end
