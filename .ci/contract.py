"""What schemathesis has to be told beside the OpenAPI document.

A format stands for values that a schema cannot describe; here each gets a way to make valid ones. And two headers are
described more loosely, or more tightly, than the server takes them; the reasons stand beside them.
"""

import base64
import os
from datetime import date, datetime, timedelta, timezone
from ipaddress import ip_address
from itertools import count

import schemathesis
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter

# A page may begin anywhere, so any row key makes a valid cursor. Clients must take it as opaque, so the document does
# not say how it is made.
schemathesis.openapi.format(
    "cursor",
    st.integers(min_value=0, max_value=2**62).map(
        lambda key: base64.urlsafe_b64encode(b"\x01" + key.to_bytes(8, "big")).rstrip(b"=").decode()
    ),
)

# URLs of a receiver are https without credentials and fragments. The server under test may call loopback alone, and
# nothing listens there: no request leaves this machine.
schemathesis.openapi.format(
    "uri",
    st.builds(
        "https://127.0.0.1:{}/{}".format,
        st.integers(min_value=1024, max_value=65535),
        st.text("abcdefghijklmnopqrstuvwxyz0123456789/-_.~%", max_size=40).map(lambda path: path.replace("%", "%25")),
    ),
)

# RFC 3339 within the years that the server knows.
schemathesis.openapi.format(
    "date-time",
    st.datetimes(
        min_value=datetime(1970, 1, 2),
        max_value=datetime(9999, 12, 30),
        timezones=st.sampled_from(
            [timezone(timedelta(minutes=minutes)) for minutes in (0, 330, -480)]
        ),
    ).map(lambda instant: instant.isoformat().replace("+00:00", "Z")),
)


# Origins of pages: the one that the operator of the server under test lists, and one that a rule refuses (422).
schemathesis.openapi.format("origin", st.sampled_from(["https://app.example.com", "https://app.example.org"]))

# Dates likewise.
schemathesis.openapi.format("date", st.dates(min_value=date(1970, 1, 2), max_value=date(9999, 12, 30)).map(str))


@schemathesis.hook
def filter_case(context, case):
    """Spares the key that the run itself is made with: whatever came after its revocation would be a 401."""
    own = os.environ["CONTRACT_KEY_ID"]
    return not (case.method == "DELETE" and (case.path_parameters or {}).get("apiKeyId") == own)


@schemathesis.hook
def map_body(context, body):
    """Lets most replays begin before they end, which no schema asks for."""
    for range in (body, body.get("filter")) if isinstance(body, dict) else ():
        if isinstance(range, dict) and isinstance(range.get("since"), str) and isinstance(range.get("until"), str):
            range["since"], range["until"] = sorted((range["since"], range["until"]))
    return body


@schemathesis.hook
def before_call(context, case, **kwargs):
    """Takes out of requests that are meant to be valid what no schema excludes: `readOnly` beside `capabilities`, a delivery
    that is named twice, more than one result of a lease, and the filter without a value that a sequence of calls makes of
    an id that is null in an answer. And lets no request wait long for a delivery that never comes."""
    body, query = case.body, case.query
    if isinstance(body, dict) and isinstance(body.get("waitSeconds"), (int, float)) and 1 < body["waitSeconds"] <= 30:
        body["waitSeconds"] = 1
    if case.meta is not None and case.meta.generation.mode.is_negative:
        return
    if isinstance(body, dict) and isinstance(body.get("readOnly"), bool) and body.get("capabilities") is not None:
        del body["readOnly"]
    for name in ("leases", "results"):
        if isinstance(body, dict) and isinstance(body.get(name), list):
            first = {item.get("deliveryId"): item for item in reversed(body[name]) if isinstance(item, dict)}
            if first:
                body[name] = list(first.values())
    for result in body.get("results") or () if isinstance(body, dict) else ():
        if isinstance(result, dict):
            given = [name for name in ("status", "error", "release") if name in result]
            for name in given[1:]:
                del result[name]
            if not given:
                result["status"] = 200
            elif given[0] == "release":
                result["release"] = True
    for name in ("projectId", "eventId", "endpointId"):
        if isinstance(query, dict) and name in query and query[name] in (None, "", "None", [], [""], [None], ["None"]):
            del query[name]


addresses = count(int(ip_address("10.0.0.1")))


def from_another_address(adapter, request, *arguments, send=HTTPAdapter.send, **options):
    """Lets each request come from an address of its own, through a trusted proxy: the checks of authentication send more
    refused keys than one address may. The header is added where a request is sent, also by a check of its own, so the
    case stays as it was made."""
    request.headers["X-Forwarded-For"] = str(ip_address(next(addresses)))
    return send(adapter, request, *arguments, **options)


HTTPAdapter.send = from_another_address


@schemathesis.hook
def before_load_schema(context, raw_schema):
    # The page that describes the name of an endpoint gives its length alone; characters that steer a display are refused.
    schemas = raw_schema["components"]["schemas"]
    printable = schemas["CreateApiKey"]["properties"]["name"]["pattern"]
    for schema in ("CreateWebhookEndpoint", "UpdateWebhookEndpoint"):
        schemas[schema]["properties"]["name"]["pattern"] = printable
    parameters = raw_schema["components"]["parameters"]
    # The document names no list of versions, so that a client made from it goes on when one is added; but any other than
    # these is refused.
    version = parameters["ApiVersion"]
    version["schema"] = {"type": "string", "enum": [version["example"]]}
    # A key that does not match its pattern is ignored as if it were absent (that is the published rule), so no key is
    # invalid.
    del parameters["IdempotencyKey"]["schema"]["pattern"]
