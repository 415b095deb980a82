defmodule Plausible.Webhooks.Store.Ecto.Text do
  @moduledoc false
  # Any bytes in a column of type text.
  #
  # PostgreSQL takes neither NUL nor what is no UTF-8, and nearly everything that
  # we store is plain text that an operator wants to read in psql. So text stays as
  # it is, and everything else becomes "\x" and its bytes in hexadecimal. So does
  # text that begins with "\x" itself: what begins like that is always encoded.
  #
  # Rejected: bytea for every name and id, which psql shows in hexadecimal.

  @spec encode(binary() | nil) :: String.t() | nil
  def encode(nil), do: nil
  def encode("\\x" <> _rest = text), do: hex(text)

  def encode(bytes) when is_binary(bytes) do
    if String.valid?(bytes) and :binary.match(bytes, <<0>>) == :nomatch,
      do: bytes,
      else: hex(bytes)
  end

  defp hex(bytes), do: "\\x" <> Base.encode16(bytes, case: :lower)

  @spec decode(String.t() | nil) :: binary() | nil
  def decode("\\x" <> hex = text) do
    case Base.decode16(hex, case: :lower) do
      {:ok, bytes} -> bytes
      # Not written by us; better than none.
      :error -> text
    end
  end

  def decode(text), do: text
end
