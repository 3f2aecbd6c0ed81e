"""A page of real use of the Python client that openapi-generator generates. See .ci/clients."""

import os

from postrider_client import ApiClient, AuditLogApi, Configuration, DeliveriesApi, EventsApi, WebhookEndpointsApi
from postrider_client.exceptions import NotFoundException
from postrider_client.models import CreateWebhookEndpoint, ErrorAnswer, EventName, PublishEvent

url, key, later = os.environ["SERVER_URL"], os.environ["API_KEY"], os.environ.get("LATER_VALUE")


def expect(value: str, today: str) -> None:
    assert value == (later or today), f"{value!r} in place of {today!r}"


with ApiClient(Configuration(host=f"{url}/v1", access_token=key)) as client:
    created = WebhookEndpointsApi(client).create_webhook_endpoint(
        CreateWebhookEndpoint(name="Orders", url="https://127.0.0.1:9/", events=[EventName.POST_DOT_CREATED])
    )
    assert created.data.secret.startswith("whsec_") and created.data.disabled_reason is None
    expect(created.data.events[0], "post.created")

    published = EventsApi(client).publish_event(
        PublishEvent(
            type=EventName.POST_DOT_CREATED,
            data={"id": "post_1", "tags": ["a"]},
            projectId="proj_1",
        )
    )
    expect(published.data.type, "post.created")

    deliveries = DeliveriesApi(client).list_webhook_deliveries(
        event_id=[published.data.id], endpoint_id=[created.data.id], limit=10
    )
    delivery = deliveries.data[0]
    expect(delivery.event_type, "post.created")
    one = DeliveriesApi(client).get_webhook_delivery(delivery.id)
    assert one.data.explanation.state and one.data.project_id == "proj_1"

    entries = AuditLogApi(client).list_audit_log(resource_id=created.data.id)
    expect(entries.data[0].action, "endpoint.created")
    expect(entries.data[0].actor.type, "api_key")

    try:
        WebhookEndpointsApi(client).get_webhook_endpoint("whe_zzzzzzzzzzzzzzzz")
        raise AssertionError("the endpoint does not exist")
    except NotFoundException as error:
        assert isinstance(error.data, ErrorAnswer), error
        expect(error.data.error.code, "not_found")
    if later:
        assert delivery.additional_properties["fieldOfTomorrow"] == {"deep": [1]}
