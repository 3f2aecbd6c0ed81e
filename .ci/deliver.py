#!/usr/bin/env python3
"""Delivers one event through a server of a package, and checks its signature.

usage: .ci/deliver.py --inside '<command>' [--port <port>] [NAME=value…] -- <program> [serve]

Each command is put behind the one of --inside, such as `chroot --userspec=postrider:postrider <root>`, with the variables as
its environment. With --port the server runs already, and listens there; else it is started on a free port.
"""

import argparse
import base64
import hashlib
import hmac
import http.server
import json
import queue
import shlex
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


def wait_until_ready(inside, program, environment, server):
    """Asks by the health check of containers, through the socket in the data directory."""
    end = time.monotonic() + SECONDS
    while subprocess.run([*inside, program, "health"], env=environment, capture_output=True).returncode:
        if time.monotonic() > end or (server and server.poll() is not None):
            sys.exit("the server does not become ready")
        time.sleep(0.1)


def deliver(base, key):
    to, arrived = receive()
    endpoint = call(f"{base}/webhook-endpoints", key,
                    {"name": "packages", "url": f"http://127.0.0.1:{to}/", "events": ["post.created"]})["data"]
    event = call(f"{base}/events", key, {"type": "post.created", "data": {"id": "post_1"}})["data"]
    request = arrived.get(timeout=SECONDS)
    if request[0]["webhook-id"] != event["id"] or not is_signed(request, endpoint["secret"]):
        sys.exit("what arrived is not the event, or its signature is wrong")
    return event["id"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--inside", required=True, type=shlex.split)
    parser.add_argument("--port", type=int)
    parser.add_argument("variables", nargs="*")
    split = sys.argv.index("--")
    given, command = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1:]
    inside = [shutil.which(given.inside[0]), *given.inside[1:]]
    environment = dict(pair.split("=", 1) for pair in given.variables)
    port = given.port or free_port()
    if not given.port:
        environment.update(POSTRIDER_LISTEN=f"127.0.0.1:{port}", POSTRIDER_METRICS_LISTEN="off", POSTRIDER_ALLOW_TARGET="127.0.0.0/8")
    created = subprocess.run(
        [*inside, command[0], "keys", "create", "--workspace", "packages", "--scope", "webhooks:manage", "--scope", "events:write",
         "--json"], env=environment, check=True, stdout=subprocess.PIPE)
    key = json.loads(created.stdout)["key"]
    server = None if given.port else subprocess.Popen([*inside, *command], env=environment)
    try:
        wait_until_ready(inside, command[0], environment, server)
        event = deliver(f"http://127.0.0.1:{port}/v1", key)
    finally:
        if server:
            server.terminate()
            server.wait(60)
    if server and server.returncode:
        sys.exit(f"the server stopped with {server.returncode}")
    print(f"delivered {event} behind: {shlex.join(given.inside)}", flush=True)


main()
