defmodule Plausible.Webhooks.Store.Ecto.Text do
  @moduledoc false
  # Any bytes in a column of type text.
  #
  # PostgreSQL accepts neither NUL nor invalid UTF-8, and nearly everything stored is plain
  # text that an operator wants to read in psql. So text stays as it is, and everything else
  # becomes "\x" and its bytes in hexadecimal. Text that begins with "\x" is encoded too, so
  # that a leading "\x" always means encoded.
  #
  # Rejected: bytea for every name and id, which psql prints in hexadecimal.

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
      # Not written by this module.
      :error -> text
    end
  end

  def decode(text), do: text
end
