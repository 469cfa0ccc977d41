// The libraries of other systems, unmodified, pointed at the service. Everything is sent twice and counts once.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { before, test } from "node:test";
import { SeverityNumber } from "@opentelemetry/api-logs";
import { OTLPLogExporter as GrpcExporter } from "@opentelemetry/exporter-logs-otlp-grpc";
import { OTLPLogExporter as HttpExporter } from "@opentelemetry/exporter-logs-otlp-proto";
import { LoggerProvider, SimpleLogRecordProcessor } from "@opentelemetry/sdk-logs";
import { Metadata } from "@grpc/grpc-js";
import { Analytics } from "@segment/analytics-node";
import { CloudEvent, emitterFor, httpTransport, Mode } from "cloudevents";
import { PostHog } from "posthog-node";
import { createWriteKey, eventsOf } from "./service.js";

const { TALLYHOUSE_URL = "" } = process.env;
let writeKey = "";

before(async () => {
  writeKey = await createWriteKey("libraries");
});

test("Segment's library for Node.js", async () => {
  const timestamp = new Date();
  const messageId = randomUUID();
  for (let time = 0; time < 2; time += 1) {
    const errors = [];
    const analytics = new Analytics({ writeKey, host: TALLYHOUSE_URL, maxRetries: 0 });
    analytics.on("error", (error) => errors.push(error));
    analytics.track({ userId: "ann", event: "Order Completed", properties: { total: 5 }, timestamp, messageId });
    analytics.identify({ userId: "ann", traits: { plan: "pro" }, timestamp, messageId: `${messageId}-identify` });
    await analytics.closeAndFlush();
    assert.deepEqual(errors, []);
  }
  const [order] = await eventsOf("Order_Completed", 1);
  assert.equal(order.event_id, messageId);
  assert.equal(order.user_id, "ann");
  assert.equal(order.properties.total, 5);
  await eventsOf("identify", 1);
});

test("PostHog's library for Node.js", async () => {
  const timestamp = new Date();
  const uuid = randomUUID();
  for (let time = 0; time < 2; time += 1) {
    const client = new PostHog(writeKey, { host: TALLYHOUSE_URL, flushAt: 1, flushInterval: 0, fetchRetryCount: 0 });
    const errors = [];
    client.on("error", (error) => errors.push(error));
    client.capture({ distinctId: "ann", event: "signed up", properties: { plan: "pro" }, timestamp, uuid });
    await client.shutdown();
    assert.deepEqual(errors, []);
  }
  const [event] = await eventsOf("signed_up", 1);
  assert.equal(event.event_id, uuid);
  assert.equal(event.user_id, "ann");
  assert.equal(event.properties.plan, "pro");
});

test("the CloudEvents library, in both modes", async () => {
  const event = new CloudEvent({ source: "/shop", type: "com.example.sold", subject: "ann", data: { total: 5 } });
  for (const mode of [Mode.BINARY, Mode.STRUCTURED]) {
    const emit = emitterFor(httpTransport(`${TALLYHOUSE_URL}/cloudevents?write_key=${writeKey}`), { mode });
    await emit(event);
  }
  const [sold] = await eventsOf("com.example.sold", 1);
  assert.equal(sold.event_id, `${event.id}@/shop`);
  assert.equal(sold.properties.total, 5);
});

for (const [name, exporter] of [
  ["grpc", () => {
    const metadata = new Metadata();
    metadata.set("authorization", `Bearer ${writeKey}`);
    return new GrpcExporter({ url: TALLYHOUSE_URL, metadata });
  }],
  ["http", () => new HttpExporter({ url: `${TALLYHOUSE_URL}/v1/logs`, headers: { authorization: `Bearer ${writeKey}` } })],
]) {
  test(`OpenTelemetry's logs over ${name}`, async () => {
    const timestamp = Date.now();
    for (let time = 0; time < 2; time += 1) {
      const provider = new LoggerProvider({ processors: [new SimpleLogRecordProcessor({ exporter: exporter() })] });
      provider.getLogger("shop").emit({
        eventName: `sold_${name}`,
        timestamp,
        severityNumber: SeverityNumber.INFO,
        attributes: { "user.id": "ann", total: 5 },
      });
      await provider.forceFlush();
      await provider.shutdown();
    }
    const [sold] = await eventsOf(`sold_${name}`, 1);
    assert.equal(sold.user_id, "ann");
    assert.equal(sold.properties.total, 5);
  });
}
