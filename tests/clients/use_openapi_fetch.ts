// A page of real use of the types that openapi-typescript generates, with the client openapi-fetch. See .ci/clients.

import { deepStrictEqual, ok, strictEqual } from "node:assert";
import createClient from "openapi-fetch";
import type { paths } from "./openapi-typescript/schema.js";

const { SERVER_URL: url, API_KEY: key, LATER_VALUE: later } = process.env;
const expect = (value: string | undefined, today: string) => strictEqual(value, later || today);

const client = createClient<paths>({ baseUrl: `${url}/v1`, headers: { Authorization: `Bearer ${key}` } });

const created = await client.POST("/webhook-endpoints", {
  body: { name: "Orders", url: "https://127.0.0.1:9/", events: ["post.created"] },
});
ok(created.data, JSON.stringify(created.error));
const endpoint = created.data.data;
ok(endpoint.secret.startsWith("whsec_") && endpoint.disabledReason === null);
expect(endpoint.events[0], "post.created");

const published = await client.POST("/events", {
  body: { type: "post.created", data: { id: "post_1", tags: ["a"] }, projectId: "proj_1" },
});
ok(published.data, JSON.stringify(published.error));
const event = published.data.data;
expect(event.type, "post.created");

const deliveries = await client.GET("/webhook-deliveries", {
  params: { query: { eventId: [event.id], endpointId: [endpoint.id], limit: 10 } },
  // A list of values is separated by commas.
  querySerializer: { array: { style: "form", explode: false } },
});
const delivery = deliveries.data?.data[0];
ok(delivery, JSON.stringify(deliveries.error));
expect(delivery.eventType, "post.created");
const one = await client.GET("/webhook-deliveries/{deliveryId}", { params: { path: { deliveryId: delivery.id } } });
ok(one.data?.data.explanation.state && one.data.data.projectId === "proj_1");

const entries = await client.GET("/audit-log", { params: { query: { resourceId: endpoint.id } } });
expect(entries.data?.data[0]?.action, "endpoint.created");
expect(entries.data?.data[0]?.actor.type, "api_key");

const missing = await client.GET("/webhook-endpoints/{endpointId}", {
  params: { path: { endpointId: "whe_zzzzzzzzzzzzzzzz" } },
});
strictEqual(missing.response.status, 404);
expect(missing.error?.error.code, "not_found");
if (later) deepStrictEqual(delivery["fieldOfTomorrow"], { deep: [1] });
