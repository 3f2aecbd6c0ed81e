// A page of real use of the client that @hey-api/openapi-ts generates. See .ci/clients.

import { deepStrictEqual, ok, strictEqual } from "node:assert";
import { client } from "./hey-api/client.gen.js";
import {
  createWebhookEndpoint,
  getWebhookDelivery,
  getWebhookEndpoint,
  listAuditLog,
  listWebhookDeliveries,
  publishEvent,
} from "./hey-api/index.js";

const { SERVER_URL: url, API_KEY: key, LATER_VALUE: later } = process.env;
const expect = (value: string | undefined, today: string) => strictEqual(value, later || today);

client.setConfig({ baseUrl: `${url}/v1`, auth: () => key });

const created = await createWebhookEndpoint({
  body: { name: "Orders", url: "https://127.0.0.1:9/", events: ["post.created"] },
  throwOnError: true,
});
const endpoint = created.data.data;
ok(endpoint.secret.startsWith("whsec_") && endpoint.disabledReason === null);
expect(endpoint.events[0], "post.created");

const published = await publishEvent({
  body: { type: "post.created", data: { id: "post_1", tags: ["a"] }, projectId: "proj_1" },
  throwOnError: true,
});
const event = published.data.data;
expect(event.type, "post.created");

const deliveries = await listWebhookDeliveries({
  query: { eventId: [event.id], endpointId: [endpoint.id], limit: 10 },
  throwOnError: true,
});
const delivery = deliveries.data.data[0];
ok(delivery);
expect(delivery.eventType, "post.created");
const one = await getWebhookDelivery({ path: { deliveryId: delivery.id }, throwOnError: true });
ok(one.data.data.explanation.state && one.data.data.projectId === "proj_1");

const entries = await listAuditLog({ query: { resourceId: endpoint.id }, throwOnError: true });
expect(entries.data.data[0]?.action, "endpoint.created");
expect(entries.data.data[0]?.actor.type, "api_key");

const missing = await getWebhookEndpoint({ path: { endpointId: "whe_zzzzzzzzzzzzzzzz" } });
strictEqual(missing.response?.status, 404);
expect(missing.error?.error.code, "not_found");
if (later) deepStrictEqual(delivery["fieldOfTomorrow"], { deep: [1] });
