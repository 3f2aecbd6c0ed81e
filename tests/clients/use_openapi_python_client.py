"""A page of real use of the client that openapi-python-client generates. See .ci/clients."""

import os

from openapi_client import AuthenticatedClient
from openapi_client.api.audit_log import list_audit_log
from openapi_client.api.deliveries import get_webhook_delivery, list_webhook_deliveries
from openapi_client.api.events import publish_event
from openapi_client.api.webhook_endpoints import create_webhook_endpoint, get_webhook_endpoint
from openapi_client.models import (
    AuditEntryPage,
    CreateWebhookEndpoint,
    DeliveryPage,
    DeliveryWithAttemptsEnvelope,
    ErrorAnswer,
    EventName,
    EventReceiptEnvelope,
    PublishEvent,
    PublishEventData,
    WebhookEndpointWithSecretEnvelope,
)

url, key, later = os.environ["SERVER_URL"], os.environ["API_KEY"], os.environ.get("LATER_VALUE")


def expect(value: str, today: str) -> None:
    assert value == (later or today), f"{value!r} in place of {today!r}"


client = AuthenticatedClient(base_url=f"{url}/v1", token=key)
created = create_webhook_endpoint.sync(
    client=client,
    body=CreateWebhookEndpoint(name="Orders", url="https://127.0.0.1:9/", events=[EventName.POST_CREATED]),
)
assert isinstance(created, WebhookEndpointWithSecretEnvelope), created
assert created.data.secret.startswith("whsec_") and created.data.disabled_reason is None
expect(created.data.events[0], "post.created")

published = publish_event.sync(
    client=client,
    body=PublishEvent(
        type_=EventName.POST_CREATED,
        data=PublishEventData.from_dict({"id": "post_1", "tags": ["a"]}),
        project_id="proj_1",
    ),
)
assert isinstance(published, EventReceiptEnvelope), published
expect(published.data.type_, "post.created")

deliveries = list_webhook_deliveries.sync(
    client=client, event_id=[published.data.id], endpoint_id=[created.data.id], limit=10
)
assert isinstance(deliveries, DeliveryPage), deliveries
delivery = deliveries.data[0]
expect(delivery.event_type, "post.created")
one = get_webhook_delivery.sync(delivery.id, client=client)
assert isinstance(one, DeliveryWithAttemptsEnvelope), one
assert one.data.explanation.state and one.data.project_id == "proj_1"

entries = list_audit_log.sync(client=client, resource_id=created.data.id)
assert isinstance(entries, AuditEntryPage), entries
expect(entries.data[0].action, "endpoint.created")
expect(entries.data[0].actor.type_, "api_key")

missing = get_webhook_endpoint.sync("whe_zzzzzzzzzzzzzzzz", client=client)
assert isinstance(missing, ErrorAnswer), missing
expect(missing.error.code, "not_found")
if later:
    assert delivery.additional_properties["fieldOfTomorrow"] == {"deep": [1]}
