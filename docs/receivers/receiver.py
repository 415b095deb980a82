# WEBHOOK_SECRET=whsec_... PORT=3000 python3 receiver.py
import json, os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from verify import verified

SECRET = os.environ["WEBHOOK_SECRET"]


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        # Raw: request.get_data() in Flask, request.body in Django, await request.body() in FastAPI.
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        id = self.headers.get("webhook-id", "")
        timestamp = self.headers.get("webhook-timestamp", "")
        signatures = self.headers.get("webhook-signature", "")
        genuine = verified(SECRET, id, timestamp, signatures, body)
        if genuine and abs(time.time() - int(timestamp)) <= 300:
            # Store the event under its id, and do the work after the answer.
            print("accepted", id, json.loads(body)["type"], flush=True)
            self.send_response(204)
        else:
            print("refused", id, flush=True)
            self.send_response(401)
        self.end_headers()

    def log_message(self, *_arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", 3000))), Receiver)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
