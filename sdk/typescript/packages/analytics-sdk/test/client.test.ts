import { expect, test, vi } from "vitest";
import { AnalyticsClient, type AnalyticsClientOptions, AnalyticsError, type StoredEvent } from "../src/index.js";
import { json, refusal } from "./support/service.js";

type Answer = (url: URL) => Response;

function client(answer: Answer, options: Partial<AnalyticsClientOptions> = {}) {
  const asked: URL[] = [];
  const fetch: typeof globalThis.fetch = async (input, init) => {
    init?.signal?.throwIfAborted();
    const url = new URL(String(input));
    asked.push(url);
    return answer(url);
  };
  const analytics = new AnalyticsClient({ baseUrl: "https://x.example/", fetch, backoffMsMin: 1, ...options });
  return { analytics, asked };
}

const event = (n: number) => ({
  event_id: `e-${n}`,
  event_type: "click",
  properties: { snake_case: n },
  user_id: null,
});

/** Pages of two events each, of `count` in all. */
const pages = (count: number): Answer => {
  return (url) => {
    const from = Number(url.searchParams.get("cursor") ?? 0);
    const events = [from, from + 1].filter((n) => n < count).map(event);
    return json(200, { events, next_cursor: from + 2 < count ? String(from + 2) : null }, { "x-watermark": "w" });
  };
};

async function all(events: AsyncGenerator<StoredEvent>, most = Number.POSITIVE_INFINITY): Promise<string[]> {
  const ids: string[] = [];
  for await (const { eventId } of events) {
    ids.push(eventId);
    if (ids.length === most) break;
  }
  return ids;
}

test("a walk follows the cursors to the end, with the same filters", async () => {
  const { analytics, asked } = client(pages(5));
  const filters = {
    eventType: ["click", "view"],
    userId: "ann",
    startDate: "2026-02-10",
    pageSize: 2,
    endDate: new Date(0),
  };
  expect(await all(analytics.getEvents(filters))).toEqual(["e-0", "e-1", "e-2", "e-3", "e-4"]);
  expect(asked.map((url) => url.searchParams.get("cursor"))).toEqual([null, "2", "4"]);
  for (const url of asked) {
    expect(url.pathname).toBe("/api/v1/events");
    url.searchParams.delete("cursor");
    expect(url.search).toBe(
      "?user_id=ann&event_type=click&event_type=view&start_date=2026-02-10&end_date=1970-01-01T00%3A00%3A00.000Z&limit=2",
    );
  }
});

test("a walk fetches no page before it is asked for, and none after the consumer has stopped", async () => {
  const { analytics, asked } = client(pages(100));
  const walk = analytics.getEvents();
  expect(asked).toEqual([]);
  expect(await all(walk, 3)).toHaveLength(3);
  expect(asked).toHaveLength(2);
});

test("a walk ends with its signal", async () => {
  const { analytics, asked } = client(pages(100));
  const controller = new AbortController();
  const ids: string[] = [];
  const walk = (async () => {
    for await (const { eventId } of analytics.getEvents({ signal: controller.signal })) {
      ids.push(eventId);
      if (ids.length === 3) controller.abort();
    }
  })();
  await expect(walk).rejects.toMatchObject({ code: "ABORTED" });
  expect(ids).toHaveLength(4);
  expect(asked).toHaveLength(2);
});

test("a walk goes on after a failure that passes, and ends with one that does not", async () => {
  const failing = vi.fn(pages(6));
  failing.mockImplementationOnce(pages(6)).mockImplementationOnce(() => refusal(503, "UNAVAILABLE"));
  expect(await all(client(failing).analytics.getEvents())).toHaveLength(6);
  const refused = client(() => refusal(400, "INVALID_CURSOR"));
  await expect(all(refused.analytics.getEvents())).rejects.toMatchObject({ code: "INVALID_CURSOR", status: 400 });
  expect(refused.asked).toHaveLength(1);
  const down = client(() => refusal(503, "UNAVAILABLE"));
  await expect(all(down.analytics.getEvents())).rejects.toBeInstanceOf(AnalyticsError);
  expect(down.asked).toHaveLength(3);
  const asksForMuch = client(() => refusal(429, "RATE_LIMITED", { headers: { "retry-after": "600" } }));
  await expect(all(asksForMuch.analytics.getEvents())).rejects.toMatchObject({ retryAfterMs: 600_000 });
  expect(asksForMuch.asked).toHaveLength(1);
});

test("a walk ends where there is no cursor, and where a cursor leads to itself", async () => {
  const without = client(() => json(200, { events: [event(0)] }));
  expect(await all(without.analytics.getEvents(), 5)).toEqual(["e-0"]);
  const circular = client(() => json(200, { events: [event(0)], next_cursor: "same" }));
  await expect(all(circular.analytics.getEvents(), 5)).rejects.toMatchObject({ code: "BAD_RESPONSE" });
  expect(circular.asked).toHaveLength(2);
});

test("whatever goes wrong with a question is an AnalyticsError", async () => {
  const failing = () => {
    throw new Error("signed out");
  };
  const { analytics } = client(pages(1), { apiKey: failing, readRetriesMax: 0 });
  const error = await analytics.getTopUsers().catch((error) => error);
  expect(error).toBeInstanceOf(AnalyticsError);
  expect(error).toMatchObject({ code: "TOKEN_UNAVAILABLE", cause: { message: "signed out" } });
  const { analytics: reading, asked } = client(() => refusal(422, "VALIDATION_ERROR", { details: [{}] }));
  await expect(reading.getEventsPage({ startDate: new Date("nonsense") })).rejects.toMatchObject({
    code: "VALIDATION_ERROR",
    details: [],
  });
  expect(asked[0]?.searchParams.get("start_date")).toBe("null");
});

test("a filter that is null is none, and a Date means its day where days are asked for", async () => {
  const { analytics, asked } = client((url) => json(200, { events: [], daily: [], metrics: [], path: url.pathname }));
  await analytics.getEventsPage({ userId: null, eventType: null } as never);
  await analytics.getDailyActiveUsers({ startDate: new Date("2026-02-10"), endDate: new Date("2026-02-11T23:00:00Z") });
  expect(asked.map((url) => url.search)).toEqual(["", "?start_date=2026-02-10&end_date=2026-02-11"]);
});

test("a signal that fires while a question waits to be asked again ends it, and is not listened to for longer", async () => {
  const controller = new AbortController();
  const add = vi.spyOn(controller.signal, "addEventListener");
  const remove = vi.spyOn(controller.signal, "removeEventListener");
  const { analytics, asked } = client(() => refusal(503, "UNAVAILABLE"), {
    backoffMsMin: 60_000,
    readBackoffMsMax: 60_000,
  });
  vi.spyOn(Math, "random").mockReturnValue(0.999);
  const answer = analytics.getTopUsers({ signal: controller.signal });
  setTimeout(() => controller.abort(), 20);
  await expect(answer).rejects.toMatchObject({ code: "ABORTED" });
  expect(asked).toHaveLength(1);
  expect(remove.mock.calls.length).toBe(add.mock.calls.length);
});

test("answers have names in camel case, but for what is in properties", async () => {
  const { analytics } = client(pages(1));
  const page = await analytics.getEventsPage();
  expect(page).toEqual({
    events: [{ eventId: "e-0", eventType: "click", properties: { snake_case: 0 }, userId: null }],
    nextCursor: null,
    freshness: { watermark: "w", isCached: false },
  });
});

test("each question has its path, its parameters and its answer", async () => {
  const bodies: Record<string, object> = {
    "/api/v1/metrics/summary": {
      org_id: "acme",
      start_date: "a",
      end_date: "b",
      metrics: [{ name: "ctr", total: 0.5, daily: [] }],
    },
    "/api/v1/metrics/dau": { org_id: "acme", start_date: "a", end_date: "b", daily: [{ date: "a", value: 3 }] },
    "/api/v1/users/top": { from: "a", to: "b", users: [{ user_id: "ann", events: 3 }] },
    "/api/v1/campaigns/top": {
      from: "a",
      to: "b",
      campaigns: [{ campaign_id: "c", events: 3, impressions: 2, clicks: 1 }],
    },
    "/stats": {
      campaign_id: "c",
      from: "a",
      to: "b",
      granularity: "hour",
      series: [{ ts: "a", impressions: 1, clicks: 0 }],
    },
    "/readyz": {
      status: "ready",
      reasons: [],
      clickhouse: "up",
      segments: { waiting: 0, parked: 0, rows: 0 },
      audit: { last_audit_at: null },
    },
    "/api/v1/events/a%2Fb%20c": event(1),
  };
  const { analytics, asked } = client((url) => json(200, bodies[url.pathname], { "x-cache": "HIT" }));
  const days = { startDate: "2026-02-10", endDate: "2026-02-11" };
  expect(await analytics.getMetricsSummary({ ...days, metrics: ["ctr", "events:x"], orgId: "acme" })).toMatchObject({
    orgId: "acme",
    metrics: [{ name: "ctr", total: 0.5 }],
    freshness: { isCached: true, watermark: null },
  });
  expect(await analytics.getDailyActiveUsers(days)).toMatchObject({ daily: [{ date: "a", value: 3 }] });
  expect(await analytics.getTopUsers({ window: "7d", limit: 5 })).toMatchObject({
    users: [{ userId: "ann", events: 3 }],
  });
  expect(await analytics.getTopCampaigns({ from: "2026-02-10", to: new Date(0) })).toMatchObject({
    campaigns: [{ clicks: 1 }],
  });
  const stats = { campaignId: "c", from: "2026-02-10", to: "2026-02-11T00:00:00Z", granularity: "hour" } as const;
  expect(await analytics.getStats(stats)).toMatchObject({ campaignId: "c", series: [{ impressions: 1 }] });
  expect(await analytics.getReadiness()).toMatchObject({ status: "ready", audit: { lastAuditAt: null } });
  expect(await analytics.getEvent("a/b c")).toMatchObject({ eventId: "e-1" });
  expect(asked.map((url) => decodeURIComponent(url.search))).toEqual([
    "?org_id=acme&start_date=2026-02-10&end_date=2026-02-11&metrics=ctr&metrics=events:x",
    "?start_date=2026-02-10&end_date=2026-02-11",
    "?window=7d&limit=5",
    "?from=2026-02-10T00:00:00Z&to=1970-01-01T00:00:00.000Z",
    "?campaign_id=c&from=2026-02-10T00:00:00Z&to=2026-02-11T00:00:00Z&granularity=hour",
    "",
    "",
  ]);
});

test("the reasons why every event is refused are an answer, unlike other failures", async () => {
  const reasons = [{ code: "DISK_FULL", message: "the disk is full", refuses_events: true }];
  const error = { code: "UNAVAILABLE", message: "the disk is full", details: [] };
  const refusing = client(() => json(503, { status: "refusing", reasons, error }, { "retry-after": "1" }));
  expect(await refusing.analytics.getReadiness()).toMatchObject({
    status: "refusing",
    reasons: [{ code: "DISK_FULL", refusesEvents: true }],
  });
  expect(refusing.asked).toHaveLength(1);
  const away = client(() => refusal(503, "UNAVAILABLE"));
  await expect(away.analytics.getReadiness()).rejects.toMatchObject({ code: "UNAVAILABLE", status: 503 });
  expect(away.asked).toHaveLength(3);
  const proxied = client(() => json(502, null), { readRetriesMax: 0 });
  await expect(proxied.analytics.getReadiness()).rejects.toMatchObject({ code: "BAD_RESPONSE", status: 502 });
});

test("an answer of another form is an error, and no wrong answer", async () => {
  const { analytics } = client(() => json(200, { hello: "world" }), { readRetriesMax: 0 });
  await expect(analytics.getTopUsers()).rejects.toMatchObject({ code: "BAD_RESPONSE" });
  await expect(analytics.getReadiness()).rejects.toMatchObject({ code: "BAD_RESPONSE" });
  const unreasoned = client(() => json(200, { status: "ready" }), { readRetriesMax: 0 });
  await expect(unreasoned.analytics.getReadiness()).rejects.toMatchObject({ code: "BAD_RESPONSE" });
});
