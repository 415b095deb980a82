# pip install standardwebhooks
# WEBHOOK_SECRET=whsec_... PORT=3000 python3 receiver.py
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        id = self.headers.get("webhook-id")
        try:
            event = webhook.verify(body, dict(self.headers))
            print("accepted", id, event["type"], flush=True)
            self.send_response(204)
        except WebhookVerificationError as error:
            print("refused", id, error, flush=True)
            self.send_response(401)
        self.end_headers()

    def log_message(self, *_arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", 3000))), Receiver)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
