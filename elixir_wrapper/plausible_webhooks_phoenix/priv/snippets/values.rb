id = {{id}}
timestamp = {{timestamp}}
signatures = {{signature}}
body = {{body}} # raw, before it is parsed
genuine = verified?(ENV.fetch("WEBHOOK_SECRET"), id, timestamp, signatures, body)
age = (Time.now.to_i - timestamp.to_i).abs # refuse more than 300
puts (genuine ? "verified" : "NOT verified") + " " + age.to_s + " s old"
