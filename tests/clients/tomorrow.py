"""A server of a later version: passes each request on to a real server, and adds to its answers what a later version may add
(docs/versioning.md). Each open object gets a field, and each value of an `x-extensible-enum` becomes one that today's
document does not know, event names and error codes among them.

usage: tomorrow.py OPENAPI_JSON SERVER_URL

Prints its own URL as the first line.
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

VALUE = "of_tomorrow"
FIELD = "fieldOfTomorrow"

with open(sys.argv[1]) as file:
    DOCUMENT = json.load(file)
SERVER = sys.argv[2].rstrip("/")


def resolve(part):
    while "$ref" in part:
        found = DOCUMENT
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def later(schema, value):
    """The value as a later version would answer it."""
    schema = resolve(schema)
    if value is None:
        return None
    if "anyOf" in schema:
        return later(next(option for option in schema["anyOf"] if option.get("type") != "null"), value)
    if "x-extensible-enum" in schema:
        return VALUE
    if isinstance(value, list) and "items" in schema:
        return [later(schema["items"], item) for item in value]
    if "properties" in schema:
        changed = {name: later(schema["properties"][name], member) for name, member in value.items()}
        return changed | ({FIELD: {"deep": [1]}} if schema["additionalProperties"] is True else {})
    return value


def answer_schema(method, path, status):
    """The schema of an answer by the document."""
    for template, item in DOCUMENT["paths"].items():
        if re.fullmatch("/v1" + re.sub(r"\{[^}]+\}", "[^/]+", template), path) and method.lower() in item:
            response = resolve(item[method.lower()]["responses"][str(status)])
            return response.get("content", {}).get("application/json", {}).get("schema")
    raise LookupError(f"{method} {path} is not in the document")


class Tomorrow(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def pass_on(self):
        length = int(self.headers.get("Content-Length") or 0)
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("host", "content-length", "connection", "accept-encoding")
        }
        request = Request(SERVER + self.path, self.rfile.read(length) or None, headers, method=self.command)
        try:
            answer = urlopen(request, timeout=10)
        except HTTPError as error:
            answer = error
        with answer:
            body, status = answer.read(), answer.status
        schema = answer_schema(self.command, self.path.partition("?")[0], status)
        if schema is not None:
            body = json.dumps(later(schema, json.loads(body))).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = do_DELETE = pass_on

    def log_message(self, format, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Tomorrow)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
