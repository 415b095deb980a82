defmodule Verify do
  @doc "Whether one of the signatures was made with the secret. `body` is the raw body."
  def verified?("whsec_" <> key, id, timestamp, signatures, body) do
    mac = :crypto.mac(:hmac, :sha256, Base.decode64!(key), [id, ".", timestamp, ".", body])
    expected = "v1," <> Base.encode64(mac)
    signatures |> String.split(" ") |> Enum.any?(&equal?(&1, expected))
  end

  # Plug.Crypto.secure_compare/2 does the same, and runs on OTP 24 and older too.
  defp equal?(a, b), do: byte_size(a) == byte_size(b) and :crypto.hash_equals(a, b)
end
