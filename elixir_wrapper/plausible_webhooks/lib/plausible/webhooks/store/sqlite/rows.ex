defmodule Plausible.Webhooks.Store.SQLite.Rows do
  @moduledoc false
  # Many rows in one statement, whose text is the same for any number of them.
  #
  # The rows are passed as two parameters. ?1 is JSON, one array of numbers per row. ?2 is one
  # blob with every byte string of all rows; the JSON says where each string begins and how
  # long it is. SQLite takes them apart with json_each and substr, on a dirty scheduler.
  #
  # Rejected: `VALUES (?,?,...)`. SQLite would have to parse another statement for
  # every size of a batch, and the number of parameters is limited. Also rejected:
  # values as literals in a script, which costs twice the time and doubles every
  # blob.

  @type column :: {name :: String.t(), :int | :text | :blob}
  @type params :: [{:blob, binary()} | binary()]

  # The limits of one statement: it needs memory for three copies, and others wait for it.
  @bytes_max 4 * 1024 * 1024
  @rows_max 1_000

  @spec names([column()]) :: String.t()
  def names(columns), do: Enum.map_join(columns, ", ", &elem(&1, 0))

  @doc "The rows as a table: `SELECT ... FROM json_each(?1)` with these columns."
  @spec select([column()]) :: String.t()
  def select(columns) do
    {list, _next} =
      Enum.map_reduce(columns, 0, fn {name, kind}, at ->
        {"#{expression(kind, at)} AS #{name}", at + if(kind == :int, do: 1, else: 2)}
      end)

    "SELECT #{Enum.join(list, ", ")} FROM json_each(?1)"
  end

  defp expression(:int, at), do: "value->>#{at}"
  defp expression(:blob, at), do: "substr(?2, value->>#{at}, value->>#{at + 1})"
  # A cast of bytes to text changes nothing but the type.
  defp expression(:text, at), do: "CAST(#{expression(:blob, at)} AS TEXT)"

  @doc "Packs rows, each a list of values of these columns, into parameters per statement."
  @spec pack(Enumerable.t(), [column()]) :: [params()]
  def pack(rows, columns) do
    bytes? = Enum.map(columns, &(elem(&1, 1) != :int))

    {chunk, chunks} =
      Enum.reduce(rows, {empty(), []}, fn row, {chunk, chunks} ->
        case add(row, bytes?, chunk) do
          {_json, _bytes, next, count} = full when next > @bytes_max or count >= @rows_max ->
            {empty(), [params(full) | chunks]}

          chunk ->
            {chunk, chunks}
        end
      end)

    chunks = if elem(chunk, 3) > 0, do: [params(chunk) | chunks], else: chunks
    Enum.reverse(chunks)
  end

  # {json, bytes, where the next string begins (substr counts from 1), rows}
  defp empty, do: {[], [], 1, 0}

  defp params({json, bytes, _next, _count}),
    do: [IO.iodata_to_binary(["[", json, "]"]), {:blob, IO.iodata_to_binary(bytes)}]

  defp add(row, bytes?, {json, bytes, next, count}) do
    {values, bytes, next} = values(row, bytes?, [], bytes, next)
    separator = if count == 0, do: "[", else: ",["
    {[json, separator, values, "]"], bytes, next, count + 1}
  end

  defp values([value | row], [false | kinds], [], bytes, next),
    do: values(row, kinds, [number(value)], bytes, next)

  defp values([value | row], [false | kinds], values, bytes, next),
    do: values(row, kinds, [values, ",", number(value)], bytes, next)

  defp values([value | row], [true | kinds], values, bytes, next) do
    values = if values == [], do: [], else: [values, ","]

    case value do
      nil ->
        values(row, kinds, [values, "null,null"], bytes, next)

      value ->
        size = byte_size(value)
        place = [Integer.to_string(next), ",", Integer.to_string(size)]
        values(row, kinds, [values | place], [bytes, value], next + size)
    end
  end

  defp values([], [], values, bytes, next), do: {values, bytes, next}

  defp number(nil), do: "null"
  defp number(true), do: "1"
  defp number(false), do: "0"
  defp number(integer) when is_integer(integer), do: Integer.to_string(integer)
end
