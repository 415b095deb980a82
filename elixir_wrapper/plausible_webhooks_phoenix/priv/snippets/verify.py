import base64, hashlib, hmac, os, time

id = {{id}}
timestamp = {{timestamp}}
signatures = {{signature}}
body = {{body}}  # raw, before it is parsed

key = base64.b64decode(os.environ["WEBHOOK_SECRET"][len("whsec_"):])
mac = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
expected = "v1," + base64.b64encode(mac).decode()
verified = any(hmac.compare_digest(s.encode(), expected.encode()) for s in signatures.split(" "))
age = abs(time.time() - int(timestamp))  # refuse more than 300
print("verified" if verified else "NOT verified", f"{age:.0f} s old")
