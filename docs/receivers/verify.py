import base64, hashlib, hmac


def verified(secret, id, timestamp, signatures, body):
    """Whether one of the signatures was made with the secret. `body` is bytes: the raw body."""
    key = base64.b64decode(secret[len("whsec_"):])
    mac = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    expected = b"v1," + base64.b64encode(mac)
    return any(hmac.compare_digest(s.encode(), expected) for s in signatures.split(" "))
