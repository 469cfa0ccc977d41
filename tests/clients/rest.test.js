// A client made from /openapi.json. Its types are checked by tsc, every operation is called with it, and every answer
// must be what the description says.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";
import createClient from "openapi-fetch";
import { Description } from "./description.js";

/** @typedef {import("./generated/openapi.d.ts").paths} paths */

const { TALLYHOUSE_URL = "", TALLYHOUSE_TOKEN = "" } = process.env;
const ORG = "acme";
const now = () => new Date().toISOString();
const today = now().slice(0, 10);

/** @type {Description} */
let description;
/** @type {Set<string>} */
const called = new Set();
/** @type {ReturnType<typeof createClient<paths>>} */
const client = createClient({ baseUrl: TALLYHOUSE_URL, headers: { authorization: `Bearer ${TALLYHOUSE_TOKEN}` } });
client.use({
  async onResponse({ request, response, schemaPath }) {
    called.add(`${request.method} ${schemaPath}`);
    const isJson = response.headers.get("content-type")?.startsWith("application/json");
    const body = isJson ? await response.clone().json() : undefined;
    assert.equal(description.fault(request.method, schemaPath, response.status, body), undefined, JSON.stringify(body));
  },
});

before(async () => {
  const document = await fetch(`${TALLYHOUSE_URL}/openapi.json`).then((answer) => answer.json());
  description = new Description(document);
});

/**
 * @template T
 * @param {{ data?: T, error?: unknown, response: Response }} answer
 * @returns {NonNullable<T>}
 */
function ok({ data, error, response }) {
  assert.ok(response.ok && data, `${response.status} ${JSON.stringify(error)}`);
  return data;
}

test("events go in and come out", async () => {
  const event = {
    event_id: randomUUID(),
    type: /** @type {const} */ ("impression"),
    campaign_id: `camp_${randomUUID()}`,
    source: "web",
    user_id: "user_1",
    occurred_at: now(),
    metadata: { size: [300, 250] },
  };
  assert.equal(ok(await client.POST("/events", { body: event })).status, "accepted");
  assert.equal(ok(await client.POST("/events", { body: event })).status, "duplicate");
  const batch = await client.POST("/api/v1/events", {
    body: { events: [{ event_type: "page_view", timestamp: now(), seq: 1 }, { event_type: "two words", timestamp: now() }] },
    params: { header: { "Idempotency-Key": randomUUID() } },
  });
  const { accepted, rejected } = ok(batch);
  assert.deepEqual([accepted, rejected.map(({ code, details }) => [code, details.length])], [1, [["INVALID", 1]]]);

  const window = { from: new Date(Date.now() - 3_600_000).toISOString(), to: new Date(Date.now() + 60_000).toISOString() };
  const query = { campaign_id: event.campaign_id, ...window, granularity: /** @type {const} */ ("hour") };
  let impressions = 0;
  for (const deadline = Date.now() + 30_000; impressions < 1 && Date.now() < deadline; ) {
    const { series } = ok(await client.GET("/stats", { params: { query } }));
    impressions = series.reduce((sum, bucket) => sum + bucket.impressions, 0);
  }
  assert.equal(impressions, 1);
  const path = { event_id: event.event_id };
  assert.deepEqual(ok(await client.GET("/events/{event_id}", { params: { path } })).metadata, event.metadata);
  assert.equal(ok(await client.GET("/api/v1/events/{event_id}", { params: { path } })).event_type, "impression");
  const page = { campaign_id: event.campaign_id, limit: 1 };
  assert.equal(ok(await client.GET("/events", { params: { query: { ...page, type: ["impression"] } } })).events.length, 1);
  const listed = ok(await client.GET("/api/v1/events", { params: { query: { ...page, start_date: today } } }));
  assert.equal(listed.events[0].event_id, event.event_id);
  for (const top of /** @type {const} */ (["/users/top", "/api/v1/users/top"])) {
    assert.ok(ok(await client.GET(top, { params: { query: { window: "24h", limit: 5 } } })).users.length > 0);
  }
  for (const top of /** @type {const} */ (["/campaigns/top", "/api/v1/campaigns/top"])) {
    assert.ok(ok(await client.GET(top, { params: { query: window } })).campaigns.length > 0);
  }
});

test("metrics, the directory and types of events are kept", async () => {
  const range = { start_date: today, end_date: today };
  ok(await client.POST("/api/v1/metrics", { body: { metrics: [{ date: today, name: "revenue", value: 12.5 }] } }));
  const summary = await client.GET("/api/v1/metrics/summary", { params: { query: { ...range, metrics: ["revenue", "ctr"] } } });
  assert.equal(ok(summary).metrics[0].total, 12.5);
  assert.equal(ok(await client.GET("/api/v1/metrics/dau", { params: { query: range } })).daily.length, 1);

  const org = { path: { org_id: ORG } };
  const body = { name: "Acme", plan: "pro", unknown_event_types: /** @type {const} */ ("accept") };
  ok(await client.PUT("/api/v1/organizations/{org_id}", { params: org, body }));
  assert.equal(ok(await client.GET("/api/v1/organizations/{org_id}", { params: org })).unknown_event_types, "accept");
  const user = { path: { user_id: "user_1" } };
  ok(await client.PUT("/api/v1/users/{user_id}", { params: user, body: { name: "Ada" } }));
  assert.equal(ok(await client.GET("/api/v1/users/{user_id}", { params: user })).name, "Ada");
  const member = { path: { ...org.path, ...user.path } };
  ok(await client.PUT("/api/v1/organizations/{org_id}/members/{user_id}", { params: member, body: { role: "owner" } }));
  const members = await client.GET("/api/v1/organizations/{org_id}/members", { params: { ...org, query: { limit: 10 } } });
  assert.equal(ok(members).members[0].user_id, "user_1");
  ok(await client.GET("/api/v1/organizations/top", { params: { query: { days: 7 } } }));

  const type = { path: { type: "purchase" } };
  const schema = { type: "object", properties: { amount: { type: "number", minimum: 0 } } };
  assert.equal(ok(await client.PUT("/api/v1/event-types/{type}", { params: type, body: { schema } })).version, 1);
  assert.equal(ok(await client.GET("/api/v1/event-types/{type}", { params: type })).versions.length, 1);
  assert.equal(ok(await client.GET("/api/v1/event-types")).event_types.length, 1);
});

test("write keys are created, listed and revoked", async () => {
  const created = ok(await client.POST("/api/v1/write-keys", { body: { name: "website" } }));
  assert.match(created.text, /^thw_/);
  const listed = ok(await client.GET("/api/v1/write-keys")).write_keys;
  assert.deepEqual(listed.map(({ key_id, revoked_at }) => [key_id, revoked_at]), [[created.key_id, null]]);
  const path = { key_id: created.key_id };
  assert.ok(ok(await client.DELETE("/api/v1/write-keys/{key_id}", { params: { path } })).revoked_at);
});

test("subscriptions hand events to handlers, and keep what failed", async () => {
  const name = "jobs";
  const path = { name };
  const body = { name, start: "now", handler: { type: "trial" }, filter: { types: ["job"] }, attempts_max: 1 };
  const created = ok(await client.POST("/api/v1/subscriptions", { body }));
  assert.deepEqual([created.handler.type, created.secret, created.order], ["trial", null, "per_user"]);
  assert.equal(ok(await client.GET("/api/v1/subscriptions")).subscriptions.length, 1);
  const changed = await client.PATCH("/api/v1/subscriptions/{name}", { params: { path }, body: { concurrency: 4 } });
  assert.deepEqual([ok(changed).concurrency, ok(changed).attempts_max], [4, 1]);
  assert.deepEqual(ok(await client.GET("/api/v1/subscriptions/{name}", { params: { path } })).filter.types, ["job"]);

  const events = [1, 2].map((seq) => ({
    event_id: `job-${seq}`, event_type: "job", user_id: "worker", seq, timestamp: now(), properties: { fail: seq === 1 },
  }));
  ok(await client.POST("/api/v1/events", { body: { events } }));
  const state = async () => ok(await client.GET("/api/v1/subscriptions/{name}/status", { params: { path } }));
  const until = async (/** @type {(state: { processed: number, dead_letters: number }) => boolean} */ isDone) => {
    for (const deadline = Date.now() + 30_000; !isDone(await state()); ) assert.ok(Date.now() < deadline);
  };
  await until(({ processed, dead_letters }) => processed === 1 && dead_letters === 1);
  const event = { params: { path: { name, event_id: "job-1" } } };
  assert.equal(ok(await client.GET("/api/v1/subscriptions/{name}/events/{event_id}", event)).status, "failed");
  const user = { params: { path: { name, user_id: "worker" } } };
  assert.deepEqual(ok(await client.GET("/api/v1/subscriptions/{name}/users/{user_id}", user)).gaps, [1]);
  assert.ok(ok(await client.POST("/api/v1/subscriptions/{name}/users/{user_id}/pause", user)).is_paused);
  assert.ok(!ok(await client.POST("/api/v1/subscriptions/{name}/users/{user_id}/resume", user)).is_paused);
  const letters = ok(await client.GET("/api/v1/subscriptions/{name}/dead-letters", { params: { path, query: { limit: 10 } } }));
  const letter = { params: { path: { name, number: letters.dead_letters[0].number } } };
  assert.equal(ok(await client.GET("/api/v1/subscriptions/{name}/dead-letters/{number}", letter)).event.event_id, "job-1");
  const numbers = [letters.dead_letters[0].number];
  assert.equal(ok(await client.POST("/api/v1/subscriptions/{name}/dead-letters/replay", { params: { path }, body: { numbers } })).replayed, 1);
  await until(({ dead_letters }) => dead_letters === 1);
  const all = { params: { path }, body: { all: true } };
  assert.equal(ok(await client.POST("/api/v1/subscriptions/{name}/dead-letters/discard", all)).discarded, 1);
  assert.ok(ok(await client.POST("/api/v1/subscriptions/{name}/pause", { params: { path } })).is_paused);
  assert.ok(!ok(await client.POST("/api/v1/subscriptions/{name}/resume", { params: { path } })).is_paused);
  assert.equal((await client.DELETE("/api/v1/subscriptions/{name}", { params: { path } })).response.status, 204);
});

test("a statement with a wrong password is refused", async () => {
  const header = { "X-ClickHouse-User": "analyst", "X-ClickHouse-Key": "wrong" };
  const refused = await client.POST("/api/v1/sql", {
    params: { header },
    headers: { "content-type": "text/plain" },
    body: "SHOW TABLES",
    bodySerializer: (body) => body,
  });
  assert.deepEqual([refused.response.status, refused.error?.error.code], [401, "UNAUTHENTICATED"]);
});

test("the service tells of itself", async () => {
  assert.equal(ok(await client.GET("/healthz")).status, "ok");
  assert.match(ok(await client.GET("/readyz")).status, /ready|degraded/);
  ok(await client.GET("/openapi.json"));
  assert.match(ok(await client.GET("/metrics", { parseAs: "text" })), /tallyhouse_/);
});

test("errors are as they are described", async () => {
  // @ts-expect-error A field that is required.
  const invalid = await client.POST("/events", { body: { event_id: "e" } });
  assert.equal(invalid.error?.error.code, "VALIDATION_ERROR");
  // @ts-expect-error A value that the description does not list.
  const unlisted = await client.GET("/stats", { params: { query: { campaign_id: "c", from: now(), to: now(), granularity: "year" } } });
  assert.equal(unlisted.response.status, 422);
  const missing = await client.GET("/events/{event_id}", { params: { path: { event_id: "nobody" } } });
  assert.equal(missing.error?.error.code, "NOT_FOUND");
  const cursor = await client.GET("/api/v1/events", { params: { query: { cursor: "AAAA" } } });
  assert.deepEqual([cursor.response.status, cursor.error?.error.code], [400, "INVALID_CURSOR"]);
  const path = { type: "purchase" };
  const narrower = { schema: { type: "object", required: ["amount"] } };
  const incompatible = await client.PUT("/api/v1/event-types/{type}", { params: { path }, body: narrower });
  assert.equal(incompatible.error?.error.code, "INCOMPATIBLE_SCHEMA");
  const nobody = await client.GET("/events", { headers: { authorization: "Bearer none" } });
  assert.deepEqual([nobody.response.status, nobody.error?.error.code], [401, "UNAUTHENTICATED"]);
});

test("what a page to try calls out makes of the description is taken", async () => {
  const event = { ...description.exampleOf("NewEvent"), event_id: randomUUID(), occurred_at: now(), org_id: ORG };
  assert.equal(description.mismatch(["components", "schemas", "NewEvent"], event), undefined);
  assert.equal(ok(await client.POST("/events", { body: event })).status, "accepted");
  for (const [schema, path] of /** @type {const} */ ([["NewUser", "/api/v1/users/tried"], ["NewOrganization", `/api/v1/organizations/${ORG}`]])) {
    const body = description.exampleOf(schema);
    assert.equal(description.mismatch(["components", "schemas", schema], body), undefined);
    const headers = { authorization: `Bearer ${TALLYHOUSE_TOKEN}`, "content-type": "application/json" };
    const answer = await fetch(TALLYHOUSE_URL + path, { method: "PUT", headers, body: JSON.stringify(body) });
    assert.equal(answer.status, 200, await answer.text());
  }
});

test("every example is what its schema says", () => {
  let examples = 0;
  for (const operation of description.operations()) {
    const [method, path] = operation.split(" ");
    const { responses } = description.document.paths[path][method.toLowerCase()];
    for (const [status, response] of Object.entries(responses)) {
      for (const { value } of Object.values(response.content?.["application/json"]?.examples ?? {})) {
        assert.equal(description.fault(method, path, status, value), undefined);
        examples += 1;
      }
    }
  }
  assert.ok(examples > 100, `${examples}`);
});

after(() => assert.deepEqual([...called].sort(), description.operations().sort(), "every operation has been called"));
