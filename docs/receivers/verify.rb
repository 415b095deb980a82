require "openssl"

# Whether one of the signatures was made with the secret. `body` is the raw body.
def verified?(secret, id, timestamp, signatures, body)
  key = secret.delete_prefix("whsec_").unpack1("m")
  mac = OpenSSL::HMAC.digest("SHA256", key, "#{id}.#{timestamp}.".b + body.b)
  expected = "v1," + [mac].pack("m0")
  signatures.split(" ").any? { |signature| OpenSSL.secure_compare(signature, expected) }
end
