// A browser's client: grpc-web through fetch, as connect-web speaks it.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema, timestampNow } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

const { TALLYHOUSE_URL, TALLYHOUSE_DESCRIPTORS } = process.env;
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(TALLYHOUSE_DESCRIPTORS)));
const transport = createGrpcWebTransport({ baseUrl: TALLYHOUSE_URL });
const connect = (name) => createClient(registry.getService(`tallyhouse.v1.${name}`), transport);

test("a browser sends a batch, follows the outcomes, and reads the count", async () => {
  const campaignId = `camp_${randomUUID()}`;
  const event = {
    eventId: campaignId,
    type: "impression",
    campaignId,
    source: "browser",
    occurredAt: timestampNow(),
  };
  const stop = new AbortController();
  const outcomes = connect("OutcomeService").watch({ campaignId }, { signal: stop.signal })[Symbol.asyncIterator]();
  const first = outcomes.next();

  const ingest = connect("IngestService");
  const stored = 2; // DURABILITY_STORED
  // The watch may begin a moment later than the call that asks for it.
  const resend = setInterval(() => ingest.ingestBatch({ events: [event] }).catch(() => {}), 100);
  const answer = await ingest.ingestBatch({ events: [event, event], durability: stored });
  assert.equal(answer.counts.accepted + answer.counts.duplicate, 2);

  const { value } = await first;
  clearInterval(resend);
  assert.equal(value.report.case, "outcome");
  assert.equal(value.report.value.eventId, campaignId);
  stop.abort();

  const now = BigInt(Math.floor(Date.now() / 1000));
  const stats = await connect("QueryService").getCampaignStats({
    campaignId,
    window: { from: { seconds: now - 3600n }, to: { seconds: now + 60n } },
  });
  assert.equal(stats.series.reduce((sum, bucket) => sum + bucket.impressions, 0n), 1n);
});

test("an error reaches a browser with its code", async () => {
  const error = await connect("QueryService").getEvent({ eventId: "nobody" }).then(
    () => assert.fail("expected an error"),
    (error) => ConnectError.from(error),
  );
  assert.equal(error.code, Code.NotFound);
});
