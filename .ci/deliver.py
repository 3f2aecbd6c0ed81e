#!/usr/bin/env python3
"""Starts a server of a package in its own root, as the user of its service, and delivers one event with a valid signature.

usage: .ci/deliver.py <root> <user:group> [NAME=value…] -- <program> serve

The variables are the server's environment. It listens on a free port of this machine, and the receiver on another.
"""

import base64
import hashlib
import hmac
import http.server
import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request

SECONDS = 60


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def call(url, key, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:
        return json.load(answer)


def is_signed(request, secret):
    headers, body = request
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = "v1," + base64.b64encode(hmac.digest(key, text, hashlib.sha256)).decode()
    return expected in headers["webhook-signature"].split()


def receive():
    arrived = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            arrived.put((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1], arrived


def main():
    root, user, *rest = sys.argv[1:]
    split = rest.index("--")
    environment = dict(pair.split("=", 1) for pair in rest[:split])
    command = rest[split + 1:]
    port = free_port()
    environment.update(POSTRIDER_LISTEN=f"127.0.0.1:{port}", POSTRIDER_METRICS_LISTEN="off", POSTRIDER_ALLOW_TARGET="127.0.0.0/8")
    inside = [shutil.which("chroot"), f"--userspec={user}", root]
    created = subprocess.run(
        [*inside, command[0], "keys", "create", "--workspace", "packages", "--scope", "webhooks:manage", "--scope", "events:write",
         "--json"], env=environment, check=True, stdout=subprocess.PIPE)
    key = json.loads(created.stdout)["key"]
    server = subprocess.Popen([*inside, *command], env=environment)
    try:
        base = f"http://127.0.0.1:{port}/v1"
        end = time.monotonic() + SECONDS
        # The health check of containers, through the socket in the data directory.
        while subprocess.run([*inside, command[0], "health"], env=environment, capture_output=True).returncode:
            if time.monotonic() > end or server.poll() is not None:
                sys.exit("the server does not become ready")
            time.sleep(0.1)
        to, arrived = receive()
        endpoint = call(f"{base}/webhook-endpoints", key,
                        {"name": "packages", "url": f"http://127.0.0.1:{to}/", "events": ["post.created"]})["data"]
        event = call(f"{base}/events", key, {"type": "post.created", "data": {"id": "post_1"}})["data"]
        request = arrived.get(timeout=SECONDS)
        if request[0]["webhook-id"] != event["id"] or not is_signed(request, endpoint["secret"]):
            sys.exit("what arrived is not the event, or its signature is wrong")
        print(f"delivered {event['id']} as {user} in {os.path.basename(root)}")
    finally:
        server.terminate()
        code = server.wait(60)
    if code:
        sys.exit(f"the server stopped with {code}")


main()
