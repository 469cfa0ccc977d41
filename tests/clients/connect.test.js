// The Connect protocol: curl-like JSON, and connect-web's own transport, unary and streaming.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema, timestampNow } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";

const { TALLYHOUSE_URL = "", TALLYHOUSE_TOKEN = "", TALLYHOUSE_DESCRIPTORS = "" } = process.env;
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(TALLYHOUSE_DESCRIPTORS)));
const authorization = `Bearer ${TALLYHOUSE_TOKEN}`;

test("plain JSON reaches a method", async () => {
  const event = { eventId: randomUUID(), type: "curl", occurredAt: new Date().toISOString(), seq: 3 };
  const call = (body, headers = { authorization }) =>
    fetch(`${TALLYHOUSE_URL}/tallyhouse.v1.IngestService/IngestBatch`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify(body),
    });
  const answer = await call({ events: [event, event] });
  assert.equal(answer.status, 200);
  const { counts, results } = await answer.json();
  assert.deepEqual(counts, { accepted: 1, duplicate: 1 });
  assert.deepEqual(results.map(({ verdict }) => verdict), ["VERDICT_DUPLICATE"]);
  const refused = await call({ events: [] }, {});
  assert.deepEqual([refused.status, (await refused.json()).code], [401, "unauthenticated"]);
  const wrong = await call({ events: 5 });
  assert.deepEqual([wrong.status, (await wrong.json()).code], [400, "invalid_argument"]);
});

for (const useBinaryFormat of [false, true]) {
  test(`connect-web, ${useBinaryFormat ? "binary" : "JSON"}`, async () => {
    const transport = createConnectTransport({
      baseUrl: TALLYHOUSE_URL,
      useBinaryFormat,
      interceptors: [(next) => (request) => {
        request.header.set("authorization", authorization);
        return next(request);
      }],
    });
    const connect = (name) => createClient(registry.getService(`tallyhouse.v1.${name}`), transport);
    const campaignId = randomUUID();
    const event = { eventId: campaignId, type: "impression", campaignId, source: "connect", occurredAt: timestampNow() };
    const stop = new AbortController();
    const outcomes = connect("OutcomeService").watch({ campaignId }, { signal: stop.signal })[Symbol.asyncIterator]();
    const first = outcomes.next();
    const ingest = connect("IngestService");
    // The watch may begin a moment later than the call that asks for it.
    const resend = setInterval(() => ingest.ingestBatch({ events: [event] }).catch(() => {}), 100);
    const stored = 2; // DURABILITY_STORED
    const answer = await ingest.ingestBatch({ events: [event, event], durability: stored });
    assert.equal(answer.counts.accepted + answer.counts.duplicate, 2);
    const { value } = await first;
    clearInterval(resend);
    assert.equal(value.report.value.eventId, campaignId);
    stop.abort();

    const missing = await connect("QueryService").getEvent({ eventId: randomUUID() }).catch((error) => error);
    assert.ok(missing instanceof ConnectError);
    assert.equal(missing.code, Code.NotFound);
    assert.equal(missing.details.length > 0, true);
    const found = await connect("QueryService").getEvent({ eventId: campaignId });
    assert.equal(found.event.event.eventId, campaignId);
  });
}
