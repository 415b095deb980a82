defmodule Plausible.Webhooks.Id do
  @moduledoc """
  Ids: a prefix and 26 characters of Crockford's Base32, which hold 48 bits of Unix
  milliseconds and 80 bits that no other id has, as in a ULID. As plain text they sort by
  time; two of the same millisecond sort at random.

      iex> id = Plausible.Webhooks.Id.delivery(1_795_428_930_123)
      iex> Plausible.Webhooks.Id.unix_ms(id)
      {:ok, 1_795_428_930_123}
  """

  @alphabet "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
  # Two characters at a time: 10 bits index 1024 pairs.
  @pairs (for a <- String.to_charlist(@alphabet), b <- String.to_charlist(@alphabet) do
            a * 256 + b
          end)
         |> List.to_tuple()
  @ms_max Bitwise.bsl(1, 48) - 1

  @typedoc "A prefix and 26 characters."
  @type t :: String.t()

  @doc "The id of a delivery, which receivers see as `webhook-id`: `msg_...`."
  @spec delivery(0..281_474_976_710_655) :: t()
  def delivery(now_ms \\ System.system_time(:millisecond)), do: new("msg_", now_ms)

  @doc "The id of a webhook: `wh_...`."
  @spec webhook(0..281_474_976_710_655) :: t()
  def webhook(now_ms \\ System.system_time(:millisecond)), do: new("wh_", now_ms)

  @doc "The id of a traffic alert, shared by its firing and its end: `alr_...`."
  @spec alert(0..281_474_976_710_655) :: t()
  def alert(now_ms \\ System.system_time(:millisecond)), do: new("alr_", now_ms)

  defp new(prefix, ms) when is_integer(ms) and ms in 0..@ms_max do
    <<a::10, b::10, c::10, d::10, e::10, f::10, g::10, h::10, i::10, j::10, k::10, l::10, m::10>> =
      <<0::2, ms::48, unique()::binary-size(10)>>

    <<prefix::binary, pair(a)::16, pair(b)::16, pair(c)::16, pair(d)::16, pair(e)::16,
      pair(f)::16, pair(g)::16, pair(h)::16, pair(i)::16, pair(j)::16, pair(k)::16, pair(l)::16,
      pair(m)::16>>
  end

  defp pair(index), do: elem(@pairs, index)

  # Nobody needs to guess an id, so a hash of what is unique to the VM and the call will do.
  # Rejected: random bytes of `:crypto`. A VM that halts without flushing frees OpenSSL's
  # tables while other processes ask for random bytes, and crashes; an id is made for every
  # delivery. Also rejected: `:rand`, whose state belongs to the host's process.
  defp unique do
    vm = [Atom.to_string(node()), System.pid(), <<:erlang.time_offset()::64>>]
    hash = :erlang.md5([vm, <<:erlang.unique_integer()::64>>])
    binary_part(hash, 0, 10)
  end

  @doc "When the id was made. `:error` for what is not an id of this module."
  @spec unix_ms(t()) :: {:ok, non_neg_integer()} | :error
  def unix_ms("msg_" <> text), do: time(text)
  def unix_ms("wh_" <> text), do: time(text)
  def unix_ms("alr_" <> text), do: time(text)
  def unix_ms(_other), do: :error

  # The first character carries 3 bits: 128 bits are 2 short of 26 times 5.
  defp time(<<first, _rest::binary-size(25)>> = text) when first in ?0..?7 do
    case decode(text, 0) do
      {:ok, value} -> {:ok, Bitwise.bsr(value, 80)}
      :error -> :error
    end
  end

  defp time(_text), do: :error

  defp decode("", value), do: {:ok, value}

  for {character, digit} <- Enum.with_index(String.to_charlist(@alphabet)) do
    defp decode(<<unquote(character), rest::binary>>, value),
      do: decode(rest, value * 32 + unquote(digit))
  end

  defp decode(_other, _value), do: :error
end
