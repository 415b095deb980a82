id = {{id}}
timestamp = {{timestamp}}
signatures = {{signature}}
# Raw, before it is parsed.
body = {{body}}

"whsec_" <> key = System.fetch_env!("WEBHOOK_SECRET")
mac = :crypto.mac(:hmac, :sha256, Base.decode64!(key), [id, ".", timestamp, ".", body])
expected = "v1," <> Base.encode64(mac)
# In an application: Plug.Crypto.secure_compare/2 instead of ==.
verified = signatures |> String.split(" ") |> Enum.any?(&(&1 == expected))
# Refuse more than 300.
age_s = abs(System.system_time(:second) - String.to_integer(timestamp))
IO.puts(if(verified, do: "verified", else: "NOT verified") <> " " <> to_string(age_s) <> " s old")
