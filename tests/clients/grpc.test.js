// A gRPC client in JavaScript, made from the .proto files alone.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const { TALLYHOUSE_URL, TALLYHOUSE_PROTO } = process.env;
const address = TALLYHOUSE_URL.replace("http://", "");
const definition = loader.loadSync(
  ["ingest", "query", "outcome", "segment"].map((name) => `tallyhouse/v1/${name}.proto`),
  { includeDirs: [TALLYHOUSE_PROTO], keepCase: true, longs: Number, enums: String, defaults: true },
);
const { v1 } = grpc.loadPackageDefinition(definition).tallyhouse;
const connect = (Service) => new Service(address, grpc.credentials.createInsecure());

const call = (client, method, request) =>
  new Promise((resolve, reject) =>
    client[method](request, (error, response) => (error ? reject(error) : resolve(response))),
  );

const click = (event_id, campaign_id) => ({
  event_id,
  type: "click",
  campaign_id,
  source: "node",
  user_id: "user_node",
  occurred_at: { seconds: Math.floor(Date.now() / 1000), nanos: 0 },
});

test("a stream is answered in order, and counts each id once", async () => {
  const ingest = connect(v1.IngestService);
  const campaign = `camp_${randomUUID()}`;
  const stream = ingest.Ingest();
  const answers = [];
  const ended = new Promise((resolve, reject) => {
    stream.on("data", (answer) => answers.push(answer));
    stream.on("end", resolve);
    stream.on("error", reject);
  });
  for (let sequence = 0; sequence < 50; sequence += 1) {
    const events = Array.from({ length: 20 }, (_, n) => click(`${campaign}-${sequence}-${n}`, campaign));
    events.push(events[0]); // Within the batch: a duplicate.
    stream.write({ sequence, events, durability: "DURABILITY_STORED" });
  }
  stream.end();
  await ended;
  assert.deepEqual(answers.map((answer) => answer.sequence), [...Array(50).keys()]);
  for (const answer of answers) {
    assert.equal(answer.counts.accepted, 20);
    assert.equal(answer.counts.duplicate, 1);
    assert.equal(answer.results[0].index, 20);
    assert.equal(answer.results[0].verdict, "VERDICT_DUPLICATE");
  }

  const query = connect(v1.QueryService);
  const now = Math.floor(Date.now() / 1000);
  const stats = await call(query, "GetCampaignStats", {
    campaign_id: campaign,
    window: { from: { seconds: now - 3600 }, to: { seconds: now + 60 } },
    granularity: "GRANULARITY_DAY",
  });
  assert.equal(stats.series.reduce((sum, bucket) => sum + bucket.clicks, 0), 1000);
  ingest.close();
  query.close();
});

test("an error carries its details", async () => {
  const query = connect(v1.QueryService);
  const error = await call(query, "GetCampaignStats", {}).then(
    () => assert.fail("expected an error"),
    (error) => error,
  );
  assert.equal(error.code, grpc.status.INVALID_ARGUMENT);
  const details = error.metadata.get("grpc-status-details-bin")[0].toString("latin1");
  assert.match(details, /google\.rpc\.BadRequest/);
  assert.match(details, /campaign_id/);
  query.close();
});
