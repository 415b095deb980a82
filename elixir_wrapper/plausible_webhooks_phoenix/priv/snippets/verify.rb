require "openssl"
require "base64"

id = {{id}}
timestamp = {{timestamp}}
signatures = {{signature}}
body = {{body}} # raw, before it is parsed

key = Base64.strict_decode64(ENV.fetch("WEBHOOK_SECRET").delete_prefix("whsec_"))
mac = OpenSSL::HMAC.digest("SHA256", key, id + "." + timestamp + "." + body)
expected = "v1," + Base64.strict_encode64(mac)
verified = signatures.split(" ").any? { |signature| OpenSSL.secure_compare(signature, expected) }
age = (Time.now.to_i - timestamp.to_i).abs # refuse more than 300
puts (verified ? "verified" : "NOT verified") + " " + age.to_s + " s old"
