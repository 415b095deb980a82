id = {{id}}
timestamp = {{timestamp}}
signatures = {{signature}}
# Raw, before it is parsed.
body = {{body}}
secret = System.fetch_env!("WEBHOOK_SECRET")
genuine = Verify.verified?(secret, id, timestamp, signatures, body)
# Refuse more than 300.
age_s = abs(System.system_time(:second) - String.to_integer(timestamp))
IO.puts(if(genuine, do: "verified", else: "NOT verified") <> " " <> to_string(age_s) <> " s old")
