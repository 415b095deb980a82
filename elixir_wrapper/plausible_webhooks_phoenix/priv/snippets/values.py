import os, time

id = {{id}}
timestamp = {{timestamp}}
signatures = {{signature}}
body = {{body}}  # raw, before it is parsed
genuine = verified(os.environ["WEBHOOK_SECRET"], id, timestamp, signatures, body)
age = abs(time.time() - int(timestamp))  # refuse more than 300
print("verified" if genuine else "NOT verified", f"{age:.0f} s old")
