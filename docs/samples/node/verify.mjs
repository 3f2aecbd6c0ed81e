// A webhook receiver: verifies each delivery, answers 204 or 400, prints a line per event.
//
// Needs `npm install standardwebhooks`. Run it with WEBHOOK_SECRET=whsec_… PORT=9002 node verify.mjs

import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

// An event has at most 256 KB. A body above this limit is not from the sender.
const BODY_BYTES_MAX = 512 * 1024;

const webhook = new Webhook(process.env.WEBHOOK_SECRET ?? "");

async function readBody(request) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw new Error("the body is too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

const server = createServer(async (request, response) => {
  try {
    // The signature covers these bytes. Do not parse and re-serialise before verifying.
    const body = await readBody(request);
    const event = webhook.verify(body, request.headers);
    // Your code here: drop the event if its id was handled before, else put it in a queue. Then answer at once.
    console.log(`verified ${event.id} ${event.type}`);
    response.writeHead(204).end();
  } catch (error) {
    console.log(`refused: ${error.message}`);
    // The unread rest of a refused body must not be parsed as the next request.
    response.writeHead(400, { Connection: "close" }).end();
  }
});

server.listen(Number(process.env.PORT ?? 9002), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
