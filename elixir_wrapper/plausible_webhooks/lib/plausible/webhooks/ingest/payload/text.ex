defmodule Plausible.Webhooks.Ingest.Payload.Text do
  @moduledoc false
  # Makes text out of what an event may hold.

  @doc false
  # Bytes that are not UTF-8 become U+FFFD, one for each. A term without a JSON form (a
  # process id, a function, a struct) becomes null.
  @spec make_encodable(term()) :: term()
  def make_encodable(text) when is_binary(text), do: valid(text)

  def make_encodable(value) when is_number(value) or is_atom(value), do: value
  def make_encodable(list) when is_list(list), do: Enum.map(list, &make_encodable/1)

  def make_encodable(%{__struct__: _other}), do: nil

  def make_encodable(%{} = map),
    do: Map.new(map, fn {key, value} -> {make_encodable(key), make_encodable(value)} end)

  def make_encodable(_other), do: nil

  defp valid(text), do: if(String.valid?(text), do: text, else: replace(text, <<>>))

  defp replace(<<char::utf8, rest::binary>>, valid),
    do: replace(rest, <<valid::binary, char::utf8>>)

  defp replace(<<_, rest::binary>>, valid), do: replace(rest, <<valid::binary, 0xFFFD::utf8>>)
  defp replace(<<>>, valid), do: valid

  @doc false
  # At most `bytes_max` bytes and an ellipsis, never within a character.
  @spec cut(String.t(), pos_integer()) :: String.t()
  def cut(text, bytes_max) when byte_size(text) <= bytes_max, do: text

  def cut(text, bytes_max) do
    <<start::binary-size(bytes_max), _rest::binary>> = text
    whole(start, 3) <> "…"
  end

  # A cut inside a character leaves up to three bytes of it behind.
  defp whole(text, 0), do: text

  defp whole(text, tries) do
    if String.valid?(text),
      do: text,
      else: text |> binary_part(0, byte_size(text) - 1) |> whole(tries - 1)
  end

  # More digits than any amount has; an exponent of a million must not become a
  # million zeros.
  @digits_max 40

  @doc false
  # A decimal number in plain notation, or nil. Knows Decimal and Money by their
  # shape, for this project depends on neither.
  @spec decimal(term()) :: String.t() | nil
  def decimal(%{__struct__: Decimal, sign: sign, coef: coef, exp: exp})
      when is_integer(coef) and abs(exp) <= @digits_max do
    sign = if sign < 0, do: "-", else: ""
    sign <> plain(Integer.to_string(coef), exp)
  end

  def decimal(%{__struct__: Money, amount: amount}), do: decimal(amount)
  def decimal(number) when is_integer(number), do: Integer.to_string(number)

  # ClickHouse keeps three places.
  def decimal(number) when is_float(number) and abs(number) < 1.0e15,
    do: :erlang.float_to_binary(number, [:compact, decimals: 3])

  def decimal(text) when is_binary(text) and byte_size(text) <= 2 * @digits_max,
    do: if(text =~ ~r/\A-?[0-9]+(\.[0-9]+)?\z/, do: text)

  def decimal(_other), do: nil

  defp plain(digits, exp) when exp >= 0, do: digits <> String.duplicate("0", exp)

  defp plain(digits, exp) do
    digits = String.pad_leading(digits, 1 - exp, "0")
    {whole, fraction} = String.split_at(digits, exp)
    whole <> "." <> fraction
  end
end
