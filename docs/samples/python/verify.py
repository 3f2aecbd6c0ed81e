"""A webhook receiver: verifies each delivery, answers 204 or 400, prints a line per event.

Needs `pip install standardwebhooks`. Run it with WEBHOOK_SECRET=whsec_… PORT=9001 python verify.py
"""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

# An event has at most 256 KB. A body above this limit is not from the sender.
BODY_BYTES_MAX = 512 * 1024

webhook = Webhook(os.environ["WEBHOOK_SECRET"])


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > BODY_BYTES_MAX:
            return self.answer(400)
        # The signature covers these bytes. Do not parse and re-serialise before verifying.
        body = self.rfile.read(int(length))
        try:
            event = webhook.verify(body, dict(self.headers))
        except (WebhookVerificationError, ValueError) as error:
            print(f"refused: {error}", flush=True)
            return self.answer(400)
        # Your code here: drop the event if its id was handled before, else put it in a queue. Then answer at once.
        print(f"verified {event['id']} {event['type']}", flush=True)
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
            # The unread rest of a refused body must not be parsed as the next request.
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    address = ("127.0.0.1", int(os.environ.get("PORT", "9001")))
    server = ThreadingHTTPServer(address, Receiver)
    print(f"listening on http://{address[0]}:{address[1]}", flush=True)
    server.serve_forever()
