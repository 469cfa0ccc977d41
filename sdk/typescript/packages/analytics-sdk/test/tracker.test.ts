import "fake-indexeddb/auto";
// Loaded when they are needed, which takes no time here.
import "../src/delivery/resolution.js";
import "../src/delivery/sender.js";
import { IDBFactory } from "fake-indexeddb";
import { beforeEach, describe, expect, test, vi } from "vitest";
import {
  AnalyticsError,
  type DropReport,
  EventTracker,
  type TrackerOptions,
  type VerdictReport,
} from "../src/index.js";
import { FakeLocks, FakePage, pass, settle, useFakeTime } from "./support/page.js";
import { FakeService, html, json, refusal } from "./support/service.js";

const TOKEN = `e30.${btoa(JSON.stringify({ org_id: "acme" }))}.c2ln`;

let service: FakeService;
let page: FakePage;
let errors: AnalyticsError[];
let verdicts: VerdictReport[];
let drops: DropReport[];

beforeEach(() => {
  useFakeTime();
  vi.stubGlobal("indexedDB", new IDBFactory());
  service = new FakeService();
  page = new FakePage().install();
  errors = [];
  verdicts = [];
  drops = [];
  return () => vi.useRealTimers();
});

function tracker(options: Partial<TrackerOptions> = {}): EventTracker {
  return new EventTracker({
    baseUrl: "https://analytics.example",
    apiKey: TOKEN,
    fetch: service.fetch,
    onError: (error) => errors.push(error),
    onVerdicts: (report) => verdicts.push(report),
    onDrop: (report) => drops.push(report),
    ...options,
  });
}

const numbered = (count: number, from = 0) => {
  return Array.from({ length: count }, (_, n) => ({ eventType: "click", properties: { n: n + from } }));
};

const countedNumbers = () => {
  const numbers = [...service.counted.values()].map((text) => JSON.parse(text).properties.n as number);
  return numbers.sort((a, b) => a - b);
};

const upTo = (count: number) => Array.from({ length: count }, (_, n) => n);

/** Lets time pass until everything is answered. */
async function flushed(client: EventTracker): Promise<void> {
  let isFlushed = false;
  void client.flush().then(() => {
    isFlushed = true;
  });
  for (let second = 0; !isFlushed; second++) {
    expect(second, "seconds until everything was answered").toBeLessThan(300);
    await pass(1_000);
  }
}

/** Makes IndexedDB refuse everything from now on. */
const failStorage = () => {
  return vi.spyOn(IDBDatabase.prototype, "transaction").mockImplementation(() => {
    throw new DOMException("no space", "QuotaExceededError");
  });
};

const dropped = (reason: string) => drops.filter((drop) => drop.reason === reason).flatMap((drop) => drop.events);

describe("tracking", () => {
  test("waits for further events, and sends them in one call with the token and a key", async () => {
    const client = tracker({ flushAfterMs: 2_000 });
    await settle();
    for (const event of numbered(3)) await client.trackEvent(event);
    await pass(1_900);
    expect(service.calls).toEqual([]);
    await pass(200);
    expect(service.calls).toHaveLength(1);
    expect(service.calls[0]).toMatchObject({
      url: "https://analytics.example/api/v1/events",
      token: `Bearer ${TOKEN}`,
      ids: { length: 3 },
    });
    expect(service.calls[0]?.key).toMatch(/^[0-9a-f-]{36}$/);
    expect(verdicts).toMatchObject([{ accepted: 3, duplicates: 0, conflicts: [], rejected: [], isReplayed: false }]);
    expect(verdicts[0]?.events.map((event) => event.properties?.n)).toEqual(upTo(3));
  });

  test("sends at once when enough events wait", async () => {
    const client = tracker({ flushAtEvents: 5 });
    for (const event of numbered(5)) void client.trackEvent(event);
    await pass(0);
    expect(countedNumbers()).toEqual(upTo(5));
  });

  test("sends many events in calls within the bounds, each with its own key", async () => {
    const client = tracker({ batchEventsMax: 40 });
    await client.trackEvents(numbered(100));
    await flushed(client);
    expect(service.calls.map((call) => call.ids.length)).toEqual([40, 40, 20]);
    expect(new Set(service.calls.map((call) => call.key)).size).toBe(3);
    const small = tracker({ batchBytesMax: 1_000 });
    await small.trackEvents(numbered(50, 100));
    await flushed(small);
    expect(service.calls.every((call) => call.body.length < 9_000)).toBe(true);
    expect(service.calls.slice(3).every((call) => call.body.length < 1_100)).toBe(true);
    expect(countedNumbers()).toEqual(upTo(150));
  });

  test("resolves once the event is in the queue, which another page finds", async () => {
    service.always = "unreachable";
    await tracker().trackEvent({ eventType: "click", properties: { n: 0 } });
    service.always = undefined;
    await flushed(tracker());
    expect(countedNumbers()).toEqual([0]);
  });

  test("takes what an object was when it was tracked", async () => {
    const client = tracker();
    const properties = { n: 0 };
    void client.trackEvent({ eventType: "click", properties });
    properties.n = 1;
    await flushed(client);
    expect(countedNumbers()).toEqual([0]);
  });
});

describe("failures", () => {
  test("an answer that is lost is asked for again with the same key and bytes, and counts once", async () => {
    service.faults.push("lost-answer", "lost-answer");
    const client = tracker();
    await client.trackEvents(numbered(10));
    await pass(10_000);
    expect(service.calls).toHaveLength(3);
    expect(new Set(service.calls.map((call) => call.key)).size).toBe(1);
    expect(new Set(service.calls.map((call) => call.body)).size).toBe(1);
    expect(countedNumbers()).toEqual(upTo(10));
    expect(verdicts).toMatchObject([{ duplicates: 10 }]);
    expect(errors.map((error) => error.code)).toEqual(["NETWORK_ERROR", "NETWORK_ERROR"]);
  });

  test("the key and the bytes of a batch are kept over a reload", async () => {
    service.always = "lost-answer";
    const first = tracker();
    await settle();
    for (const event of numbered(7)) await first.trackEvent(event);
    await pass(2_500);
    const { key, body } = service.calls[0] as { key: string; body: string };
    service.always = undefined;
    const second = tracker();
    await second.trackEvent({ eventType: "click", properties: { n: 7 } });
    await pass(60_000);
    const repeated = service.calls.filter((call) => call.key === key).slice(1);
    expect(repeated.length).toBeGreaterThan(0);
    expect(new Set(repeated.map((call) => call.body))).toEqual(new Set([body]));
    expect(service.calls.at(-1)?.ids).toHaveLength(1);
    expect(countedNumbers()).toEqual(upTo(8));
  });

  test.each([
    [429, "RATE_LIMITED"],
    [503, "OVERLOADED"],
  ])("a %i with Retry-After is not followed by a call before that time, by any tab", async (status, code) => {
    service.faults.push(() => refusal(status, code, { headers: { "retry-after": "30" } }));
    const client = tracker();
    await client.trackEvents(numbered(5));
    await pass(1_000);
    expect(service.calls).toHaveLength(1);
    const other = tracker();
    await other.trackEvents(numbered(5, 5));
    page.goOnline();
    await pass(28_000);
    expect(service.calls).toHaveLength(1);
    await pass(5_000);
    expect(countedNumbers()).toEqual(upTo(10));
    expect(errors[0]).toMatchObject({ status, code, retryable: true, retryAfterMs: 30_000 });
  });

  test("pauses grow with full jitter, and end with the first answer", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0.999);
    service.always = () => refusal(503, "UNAVAILABLE");
    const client = tracker({ backoffMsMin: 1_000, backoffMsMax: 8_000 });
    await client.trackEvents(numbered(1));
    const at: number[] = [];
    const start = Date.now();
    for (let tick = 0; tick < 240; tick++) {
      await vi.advanceTimersByTimeAsync(100);
      await settle(25);
      while (at.length < service.calls.length) at.push(Date.now() - start);
    }
    const gaps = at.map((time, index) => Math.round((time - (at[index - 1] ?? 0)) / 1_000));
    expect(gaps.slice(1, 6)).toEqual([1, 2, 4, 8, 8]);
    service.always = undefined;
    await pass(9_000);
    expect(countedNumbers()).toEqual([0]);
    service.faults.push(() => refusal(503, "UNAVAILABLE"));
    await client.trackEvents(numbered(1, 1));
    await pass(2_000);
    expect(countedNumbers()).toEqual([0, 1]);
  });

  test("an answer that is not the service's is asked for again, but not for ever", async () => {
    const isBlocked = (body: unknown) => String(body).includes('"n":3');
    const client = tracker({
      badAnswersMax: 3,
      backoffMsMax: 1_000,
      fetch: async (input, init) => (isBlocked(init?.body) ? html() : service.fetch(input, init)),
    });
    await client.trackEvents(numbered(8));
    await flushed(client);
    expect(countedNumbers()).toEqual([0, 1, 2, 4, 5, 6, 7]);
    expect(dropped("undeliverable")).toMatchObject([{ properties: { n: 3 } }]);
    expect(errors.every((error) => error.code === "BAD_RESPONSE")).toBe(true);
  });

  test("an answer that does not account for every event is not believed", async () => {
    service.faults.push(
      () => json(202, { accepted: 1, duplicates: 0, rejected: [] }),
      () => json(200, {}),
      () => json(202, { accepted: -1, duplicates: 3, rejected: [] }),
      () => json(202, { accepted: 1, duplicates: 0, rejected: [{ index: 2 }] }),
      () => json(202, null),
    );
    const client = tracker({ backoffMsMax: 100 });
    await client.trackEvents(numbered(2));
    await pass(20_000);
    expect(service.calls).toHaveLength(6);
    expect(countedNumbers()).toEqual([0, 1]);
  });

  test("an event that makes a call unreadable is found and told of, and holds up no other", async () => {
    service.unreadable = "poison";
    const client = tracker();
    const events = numbered(50);
    (events[17] as { eventType: string }).eventType = "poison";
    await client.trackEvents(events);
    await flushed(client);
    expect(countedNumbers()).toEqual(upTo(50).filter((n) => n !== 17));
    const rejected = verdicts.flatMap((report) => report.rejected);
    expect(rejected).toMatchObject([{ code: "MALFORMED_JSON", event: { eventType: "poison" } }]);
    expect(service.calls.length).toBeLessThan(20);
  });

  test("each event that is rejected or in conflict reaches the callback with its reason", async () => {
    const client = tracker();
    await client.trackEvents([{ eventType: "click", eventId: "e-1", timestamp: 0, properties: { n: 1 } }]);
    await flushed(client);
    await client.trackEvents([
      { eventType: "click", eventId: "e-1", timestamp: 0, properties: { n: 1 } },
      { eventType: "click", eventId: "e-1", timestamp: 0, properties: { n: 2 } },
      { eventType: "bad type", eventId: "e-2" },
      { eventType: "click", eventId: "e-3" },
    ]);
    await client.trackEvents([{ eventType: "bad type", eventId: "e-4" }]);
    await client.trackEvents([{ eventType: "click", eventId: "e-1", timestamp: 0, properties: { n: 3 } }]);
    await flushed(client);
    const told = verdicts.map(({ accepted, duplicates, conflicts, rejected }) => {
      const named = (faults: VerdictReport["rejected"]) => faults.map(({ event, code }) => `${event.eventId} ${code}`);
      return [accepted, duplicates, named(conflicts), named(rejected)];
    });
    expect(told).toEqual([
      [1, 0, [], []],
      [1, 1, ["e-1 CONFLICT"], ["e-2 INVALID"]],
      [0, 0, [], ["e-4 INVALID"]],
      [0, 0, ["e-1 CONFLICT"], []],
    ]);
    expect(verdicts[1]?.rejected[0]).toMatchObject({ field: "event_type", message: "must be a token" });
  });

  test("an event that the service could not decide on is sent again later", async () => {
    const undecided = { index: 1, code: "UNDECIDED", field: "event_id", message: "send it again later" };
    service.faults.push(() => json(202, { accepted: 1, duplicates: 0, rejected: [undecided] }));
    const client = tracker();
    await client.trackEvents(numbered(2));
    await pass(4_000);
    expect(service.calls).toHaveLength(1);
    await pass(2_000);
    expect(service.calls[1]).toMatchObject({ ids: [service.calls[0]?.ids[1]] });
    expect(service.calls[1]?.key).not.toBe(service.calls[0]?.key);
    expect(verdicts.map((report) => report.events.length)).toEqual([1, 1]);
  });

  test("a token that is refused costs no event", async () => {
    let token = "old";
    service.always = () => refusal(401, "UNAUTHENTICATED");
    const client = tracker({ apiKey: () => token, backoffMsMax: 1_000 });
    await client.trackEvents(numbered(3));
    await pass(5_000);
    expect(errors[0]).toMatchObject({ code: "UNAUTHENTICATED", retryable: false });
    token = "new";
    service.always = undefined;
    await pass(2_000);
    expect(service.calls.at(-1)?.token).toBe("Bearer new");
    expect(countedNumbers()).toEqual(upTo(3));
  });

  test("events of one organization are never sent with another's token", async () => {
    let organization = "acme";
    const client = tracker({ apiKey: async () => `e30.${btoa(JSON.stringify({ org_id: organization }))}.c2ln` });
    await client.trackEvents(numbered(1));
    await flushed(client);
    organization = "beta";
    await client.trackEvents(numbered(1, 1));
    await pass(3_000);
    expect(countedNumbers()).toEqual([0]);
    expect(errors[0]?.code).toBe("WRONG_ORGANIZATION");
    page.hide();
    await settle();
    page.show();
    expect(countedNumbers()).toEqual([0]);
    const beta = tracker({ apiKey: await (client as never as { token(): Promise<string> }).token() });
    await beta.trackEvents(numbered(1, 2));
    await flushed(beta);
    expect(countedNumbers()).toEqual([0, 2]);
    organization = "acme";
    await flushed(client);
    expect(countedNumbers()).toEqual([0, 1, 2]);
  });

  test("events of the organization that is set are not sent with another's token as the page closes", async () => {
    const client = tracker({ orgId: "beta" });
    void client.trackEvent({ eventType: "click" });
    client.stop();
    await pass(5_000);
    expect(service.calls).toEqual([]);
  });
});

describe("nonsense", () => {
  test("that refuses every key does not make the client call without a pause", async () => {
    service.always = () => refusal(422, "IDEMPOTENCY_KEY_REUSED");
    const client = tracker();
    await client.trackEvents(numbered(1));
    await pass(10_000);
    expect(service.calls.length).toBeGreaterThan(1);
    expect(service.calls.length).toBeLessThan(40);
    expect(new Set(service.calls.map((call) => call.key)).size).toBe(service.calls.length);
    service.always = undefined;
    await flushed(client);
    expect(countedNumbers()).toEqual([0]);
  });
});

describe("the network", () => {
  test("nothing is sent while the browser is offline, and everything once it is back", async () => {
    const client = tracker();
    page.goOffline();
    await client.trackEvents(numbered(30));
    await pass(30_000);
    expect(service.calls).toEqual([]);
    page.goOnline();
    await pass(0);
    expect(countedNumbers()).toEqual(upTo(30));
    expect(service.sent).toBe(30);
  });

  test("coming back online ends a pause that followed a failure", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0.999);
    service.faults.push("unreachable", "unreachable");
    const client = tracker({ backoffMsMin: 40_000 });
    await client.trackEvents(numbered(1));
    await pass(1_000);
    expect(service.calls).toHaveLength(1);
    page.goOnline();
    await pass(0);
    expect(service.calls).toHaveLength(2);
  });
});

describe("two tabs", () => {
  test("send one after the other, and nothing twice", async () => {
    const locks = new FakeLocks();
    page = new FakePage().install({ locks: locks as never });
    const tabs = [tracker({ flushAtEvents: 3 }), tracker({ flushAtEvents: 3 })];
    for (const event of numbered(60)) {
      void tabs[(event.properties.n as number) % 2]?.trackEvent(event);
      if ((event.properties.n as number) % 7 === 0) await settle(1);
    }
    await Promise.all(tabs.map((tab) => tab.flush()));
    expect(countedNumbers()).toEqual(upTo(60));
    expect(service.sent).toBe(60);
    expect(locks.heldMost).toBe(1);
  });

  test("a flush is done once another tab has sent", async () => {
    const locks = new FakeLocks();
    page = new FakePage().install({ locks: locks as never });
    const [one, other] = [tracker(), tracker()];
    await one.trackEvent({ eventType: "click", properties: { n: 0 } });
    await Promise.all([other.flush(), one.flush()]);
    expect(service.sent).toBe(1);
  });
});

describe("a tab that sends what it tracked as it is hidden", () => {
  test("does not take away the batch that another tab has made of it and of more", async () => {
    page = new FakePage().install({ locks: new FakeLocks() as never });
    let fail: ((error: TypeError) => void) | undefined;
    const failing: typeof fetch = (input, init) => {
      if (fail !== undefined) return service.fetch(input, init);
      return new Promise((_, reject) => {
        fail = reject;
      });
    };
    const hidden = tracker({ flushAfterMs: 60_000 });
    const other = tracker({ flushAfterMs: 60_000, fetch: failing });
    await Promise.all([hidden.flush(), other.flush()]);
    await hidden.trackEvent({ eventType: "click", properties: { n: 0 } });
    await pass(5);
    await other.trackEvent({ eventType: "click", properties: { n: 1 } });
    void other.flush();
    await settle();
    expect(fail).toBeDefined();
    hidden.stop();
    await settle();
    expect(countedNumbers()).toEqual([0]);
    fail?.(new TypeError("connection reset"));
    await pass(5_000);
    expect(countedNumbers()).toEqual([0, 1]);
  });
});

describe("a page that closes", () => {
  test("sends what waits at once, in requests that outlive it", async () => {
    const client = tracker();
    await settle();
    await client.trackEvent({ eventType: "click", properties: { n: 0 } });
    void client.trackEvent({ eventType: "click", properties: { n: 1 } });
    page.close();
    expect(service.calls).toHaveLength(1);
    expect(service.calls[0]).toMatchObject({ keepalive: true, ids: { length: 2 } });
    await pass(5_000);
    expect(service.sent).toBe(2);
  });

  test("also sends what the page tracks while it closes", async () => {
    const client = tracker();
    await flushed(client);
    page.close();
    void client.trackEvent({ eventType: "leave", properties: { n: 0 } });
    await Promise.resolve();
    expect(service.calls).toHaveLength(1);
    await pass(5_000);
    expect(service.sent).toBe(1);
  });

  test("stays within 64 KiB of all requests under way, and leaves the rest to the next page", async () => {
    const never = new Promise<Response>(() => {});
    const sizes: number[] = [];
    const hanging: typeof fetch = (_, init) => {
      if (init?.keepalive) sizes.push(String(init.body).length);
      return never;
    };
    const closing = tracker({ fetch: hanging });
    const big = (n: number) => ({ eventType: "click", properties: { n, text: "x".repeat(9_000) } });
    await closing.trackEvents(upTo(20).map(big));
    await settle();
    page.close();
    expect(sizes.length).toBeGreaterThan(1);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThanOrEqual(65_536);
    await flushed(tracker());
    expect(countedNumbers()).toEqual(upTo(20));
  });

  test("counts once what it sent twice, having heard no answer", async () => {
    const client = tracker();
    await client.trackEvent({ eventType: "click", properties: { n: 0 } });
    service.faults.push("lost-answer");
    page.close();
    await settle();
    await flushed(tracker());
    expect(service.sent).toBe(2);
    expect(countedNumbers()).toEqual([0]);
  });

  test("goes on when it was only hidden", async () => {
    const client = tracker();
    page.hide();
    page.show();
    await client.trackEvent({ eventType: "click", properties: { n: 0 } });
    await flushed(client);
    expect(countedNumbers()).toEqual([0]);
  });

  test("does not knock on a door that asked for time", async () => {
    service.faults.push(() => refusal(429, "RATE_LIMITED", { headers: { "retry-after": "30" } }));
    const client = tracker();
    await client.trackEvents(numbered(1));
    await pass(0);
    page.close();
    await settle();
    expect(service.calls).toHaveLength(1);
    await pass(31_000);
    expect(countedNumbers()).toEqual([0]);
  });

  test("sends by fetch what another way of sending does not take, also when that throws", async () => {
    const closeTransport = vi.fn<() => boolean>(() => false);
    const client = tracker({ closeTransport });
    await settle();
    await client.trackEvent({ eventType: "click", properties: { n: 0 } });
    page.close();
    await settle();
    expect(countedNumbers()).toEqual([0]);
    closeTransport.mockImplementation(() => {
      throw new TypeError("no beacon today");
    });
    await client.trackEvent({ eventType: "click", properties: { n: 1 } });
    expect(() => client.stop()).not.toThrow();
    await settle();
    expect(closeTransport).toHaveBeenCalledTimes(2);
    expect(countedNumbers()).toEqual([0, 1]);
    expect(errors.map((error) => error.code)).toEqual(["INTERNAL"]);
  });

  test("hands its events to another way of sending, and keeps them until they are confirmed", async () => {
    const bodies: string[] = [];
    const closeTransport = (body: string) => {
      bodies.push(body);
      return true;
    };
    const client = tracker({ closeTransport });
    await client.trackEvent({ eventType: "click", properties: { n: 0 } });
    page.close();
    expect(service.calls).toEqual([]);
    expect(JSON.parse(bodies[0] as string).events).toHaveLength(1);
    await flushed(tracker());
    expect(countedNumbers()).toEqual([0]);
  });
});

describe("a full queue", () => {
  test.each([
    ["drop-oldest", upTo(50).slice(40)],
    ["drop-newest", upTo(10)],
  ] as const)("with %s is bounded, and tells what it dropped", async (whenFull, kept) => {
    page.goOffline();
    const client = tracker({ queueEventsMax: 10, whenFull });
    for (const event of numbered(50)) void client.trackEvent(event);
    await settle();
    page.goOnline();
    await flushed(client);
    const told = dropped("queue-full").map((event) => event.properties?.n as number);
    expect(countedNumbers()).toEqual(kept);
    expect([...told, ...kept].sort((a, b) => a - b)).toEqual(upTo(50));
  });
});

describe("a clock that is wrong", () => {
  test("does not cost the events that it was wrong for, nor make the next ones wrong", async () => {
    service.clockMs = -3_600_000;
    const client = tracker();
    await client.trackEvents(numbered(2));
    await flushed(client);
    await client.trackEvent({ eventType: "click", properties: { n: 2 } });
    await flushed(client);
    expect(countedNumbers()).toEqual(upTo(3));
    const now = Date.now() + service.clockMs;
    for (const text of service.counted.values()) {
      expect(Math.abs(Date.parse(JSON.parse(text).timestamp) - now)).toBeLessThan(2_000);
    }
    expect(verdicts.flatMap((report) => report.rejected)).toEqual([]);
  });

  test("is left alone when so set, and times of the caller always", async () => {
    service.clockMs = -3_600_000;
    const client = tracker({ correctClock: false });
    await client.trackEvents(numbered(1));
    await flushed(client);
    const correcting = tracker();
    await correcting.trackEvents([{ eventType: "click", timestamp: Date.now() + 1 }]);
    await flushed(correcting);
    expect(service.counted.size).toBe(0);
    expect(verdicts.flatMap((report) => report.rejected.map((fault) => fault.code))).toEqual([
      "IN_FUTURE",
      "IN_FUTURE",
    ]);
  });

  test("that moves back does not stop the queue for as long as it moved", async () => {
    service.faults.push(() => refusal(503, "UNAVAILABLE", { headers: { "retry-after": "60" } }));
    const client = tracker();
    await client.trackEvents(numbered(1));
    await pass(0);
    vi.setSystemTime(Date.now() - 365 * 86_400_000);
    service.clockMs = 365 * 86_400_000;
    await flushed(tracker());
    expect(countedNumbers()).toEqual([0]);
  });
});

describe("consent", () => {
  test("pending: nothing is stored or sent until it is granted", async () => {
    const client = tracker({ consent: "pending" });
    for (const event of numbered(3)) await client.trackEvent(event);
    await flushed(client);
    await flushed(tracker());
    expect(service.calls).toEqual([]);
    await client.setConsent("granted");
    await flushed(client);
    expect(countedNumbers()).toEqual(upTo(3));
  });

  test("without it, nothing is stored or asked for, not even an empty database", async () => {
    const apiKey = vi.fn(() => TOKEN);
    const pending = tracker({ consent: "pending", apiKey });
    await pending.trackEvent({ eventType: "click", properties: { n: 0 } });
    page.hide();
    page.show();
    page.goOnline();
    await pass(5_000);
    const denied = tracker({ consent: "denied", apiKey });
    await denied.flush();
    await pass(5_000);
    expect(await indexedDB.databases()).toEqual([]);
    expect(apiKey).not.toHaveBeenCalled();
    await pending.shutdown();
    expect(dropped("shut-down")).toMatchObject([{ properties: { n: 0 } }]);
  });

  test("granted: what earlier pages left is sent as well", async () => {
    service.always = "unreachable";
    await tracker().trackEvents(numbered(2));
    await settle();
    service.always = undefined;
    const client = tracker({ consent: "pending" });
    await client.setConsent("granted");
    await flushed(client);
    expect(countedNumbers()).toEqual(upTo(2));
  });

  test("denied: everything that waits goes, nothing more is taken, and later pages know", async () => {
    page.goOffline();
    const client = tracker();
    await client.trackEvents(numbered(3));
    await client.setConsent("denied");
    await client.trackEvent({ eventType: "click", properties: { n: 3 } });
    page.goOnline();
    await pass(5_000);
    expect(dropped("consent")).toHaveLength(4);
    const later = tracker();
    expect(later.consent).toBe("denied");
    await later.trackEvent({ eventType: "click", properties: { n: 4 } });
    await flushed(later);
    expect(service.calls).toEqual([]);
    await later.setConsent("granted");
    await later.trackEvent({ eventType: "click", properties: { n: 5 } });
    await flushed(later);
    expect(countedNumbers()).toEqual([5]);
  });

  test("pending: what is held is bounded by bytes as well", async () => {
    const client = tracker({ consent: "pending", queueBytesMax: 5_000 });
    const big = (n: number) => ({ eventType: "click", properties: { n, text: "x".repeat(2_000) } });
    for (const n of upTo(4)) await client.trackEvent(big(n));
    expect(dropped("queue-full").map((event) => event.properties?.n)).toEqual([0, 1]);
    await client.setConsent("granted");
    await flushed(client);
    expect(countedNumbers()).toEqual([2, 3]);
  });

  test("denied while pending: what was held goes", async () => {
    const client = tracker({ consent: "pending", queueEventsMax: 2 });
    for (const event of numbered(3)) await client.trackEvent(event);
    await client.setConsent("denied");
    await client.setConsent("granted");
    await flushed(client);
    expect(service.calls).toEqual([]);
    expect(dropped("queue-full")).toMatchObject([{ properties: { n: 0 } }]);
    expect(dropped("consent")).toHaveLength(2);
  });
});

describe("the page is never harmed", () => {
  test("by events that are none, callbacks that throw, or a fetch that throws", async () => {
    const consoleError = vi.spyOn(console, "error").mockImplementation(() => {});
    const fail = () => {
      throw new Error("the page's own");
    };
    const client = tracker({ onError: fail, onVerdicts: fail, onDrop: fail, fetch: fail, backoffMsMax: 1 });
    const cyclic: Record<string, unknown> = {};
    cyclic.self = cyclic;
    await client.trackEvent({ eventType: "x", properties: cyclic });
    await client.trackEvent(null as never);
    await client.trackEvents(null as never);
    await client.trackEvents(5 as never);
    await client.trackEvent({ eventType: "x", properties: { text: "x".repeat(100_000) } });
    await client.trackEvents(numbered(2));
    await pass(100);
    const ended = client.shutdown({ timeoutMs: 1 });
    await pass(10);
    await ended;
    await client.trackEvent({ eventType: "x" });
    await client.trackEvents(null as never);
    expect(consoleError).toHaveBeenCalled();
  });

  test("by storage that cannot be opened or fails later: events wait in memory", async () => {
    vi.stubGlobal("indexedDB", {
      open: () => {
        throw new DOMException("denied", "SecurityError");
      },
    });
    const closed = tracker();
    await closed.trackEvents(numbered(2));
    await flushed(closed);
    expect(countedNumbers()).toEqual(upTo(2));

    const factory = new IDBFactory();
    vi.stubGlobal("indexedDB", factory);
    const client = tracker({ baseUrl: "https://other.example" });
    await client.trackEvent({ eventType: "click", properties: { n: 2 } });
    page.goOffline();
    const full = failStorage();
    await client.trackEvent({ eventType: "click", properties: { n: 3 } });
    page.goOnline();
    await flushed(client);
    expect(full).toHaveBeenCalled();
    expect(countedNumbers()).toEqual(upTo(4));
    expect(errors.map((error) => error.code)).toEqual(["STORAGE_UNAVAILABLE", "STORAGE_UNAVAILABLE"]);
  });

  test("by storage that fails while a call is under way: its events are sent again", async () => {
    let fail: (() => void) | undefined;
    const fetch: typeof globalThis.fetch = (input, init) => {
      if (fail !== undefined) return service.fetch(input, init);
      return new Promise((_, reject) => {
        fail = () => reject(new TypeError("connection reset"));
      });
    };
    const client = tracker({ fetch });
    await client.trackEvents(numbered(2));
    await settle();
    failStorage();
    await client.trackEvents(numbered(1, 2));
    await settle();
    fail?.();
    await flushed(client);
    expect(countedNumbers()).toEqual(upTo(3));
    expect(drops).toEqual([]);
  });

  test("by storage that fails after a batch was split: all of its events are sent", async () => {
    service.unreadable = "poison";
    const client = tracker({
      fetch: (input, init) => {
        if (service.calls.length === 1) failStorage();
        return service.fetch(input, init);
      },
    });
    const events = numbered(8);
    (events[1] as { eventType: string }).eventType = "poison";
    await client.trackEvents(events);
    await flushed(client);
    expect(countedNumbers()).toEqual([0, 2, 3, 4, 5, 6, 7]);
    expect(verdicts.flatMap((report) => report.rejected)).toMatchObject([{ event: { eventType: "poison" } }]);
  });

  test("by storage that fails after events were handed over: they are sent again, as they are not confirmed", async () => {
    const client = tracker({ closeTransport: () => true });
    await client.trackEvent({ eventType: "click", properties: { n: 0 } });
    page.hide();
    failStorage();
    page.show();
    await client.trackEvent({ eventType: "click", properties: { n: 1 } });
    await flushed(client);
    expect(countedNumbers()).toEqual(upTo(2));
  });

  test.each([
    ["a text", { "000": "nonsense" }],
    ["nothing", { "000": null }],
    ["a record without events", { "000": { id: "000" } }],
    ["a batch without events", { "000": { id: "000", key: "k", bytes: 5 } }],
    [
      "a record of which the event is no JSON",
      { "000": { id: "000", events: ["{nonsense"], bytes: 9, badAnswers: 0 } },
    ],
    ["a state without members", { state: {} }],
    ["a state that is a text", { state: "nonsense" }],
  ])("by %s in the database: what is tracked is sent, also by the next page", async (_, stored) => {
    const opening = indexedDB.open("tallyhouse:https://analytics.example:acme", 1);
    opening.onupgradeneeded = () => {
      const store = opening.result.createObjectStore("queue");
      for (const [key, value] of Object.entries(stored)) store.put(value, key);
    };
    await new Promise((resolve) => {
      opening.onsuccess = resolve;
    });
    opening.result.close();
    const real = service.fetch;
    const fetch: typeof globalThis.fetch = async (input, init) => {
      try {
        return await real(input, init);
      } catch {
        return refusal(400, "MALFORMED_JSON");
      }
    };
    const client = tracker({ fetch });
    await client.trackEvents(numbered(2));
    await flushed(client);
    const next = tracker({ fetch });
    await next.trackEvents(numbered(2, 2));
    await flushed(next);
    expect(countedNumbers()).toEqual(upTo(4));
  });

  test("by settings that are no numbers: the defaults take their place", async () => {
    const nonsense = { batchEventsMax: Number.NaN, flushAfterMs: -1, backoffMsMax: Number.NaN, queueEventsMax: null };
    const client = tracker({ ...(nonsense as object), orgId: null as never, fetch: service.fetch });
    await client.trackEvents(numbered(150));
    await flushed(client);
    const fraction = tracker({ batchEventsMax: 2.5 });
    await fraction.trackEvents(numbered(5, 150));
    await flushed(fraction);
    expect(service.calls.map((call) => call.ids.length)).toEqual([100, 50, 2, 2, 1]);
    expect(errors).toEqual([]);
    vi.stubGlobal("fetch", service.fetch);
    const own = new EventTracker({ baseUrl: undefined as never, fetch: null as never, storage: "memory" });
    await own.trackEvents(numbered(1, 155));
    await flushed(own);
    expect(service.calls.at(-1)?.url).toBe("/api/v1/events");
  });

  test("by locks that are refused, as in a sandboxed frame", async () => {
    const refusing = { request: () => Promise.reject(new DOMException("denied", "SecurityError")) };
    page = new FakePage().install({ locks: refusing as never });
    const client = tracker();
    await client.trackEvents(numbered(2));
    await flushed(client);
    expect(countedNumbers()).toEqual(upTo(2));
  });

  test("by a fetch that never ends and does not heed its signal", async () => {
    vi.spyOn(Math, "random").mockReturnValue(0);
    let calls = 0;
    const fetch: typeof globalThis.fetch = (input, init) => {
      calls++;
      return calls < 3 ? new Promise(() => {}) : service.fetch(input, init);
    };
    const client = tracker({ fetch, requestTimeoutMs: 5_000 });
    await client.trackEvents(numbered(1));
    await pass(11_000);
    expect(errors.map((error) => error.code)).toEqual(["TIMEOUT", "TIMEOUT"]);
    expect(countedNumbers()).toEqual([0]);
  });

  test("by an apiKey that never answers: other tabs send", async () => {
    const locks = new FakeLocks();
    page = new FakePage().install({ locks: locks as never });
    const orgId = "acme";
    let isHanging = false;
    const never = new Promise<string>(() => {});
    const client = tracker({ orgId, apiKey: () => (isHanging ? never : TOKEN) });
    await flushed(client);
    isHanging = true;
    await client.trackEvents(numbered(1));
    await pass(1_000);
    await tracker({ orgId }).trackEvents(numbered(1, 1));
    await pass(16_000);
    expect(errors.map((error) => error.code)).toEqual(["TOKEN_UNAVAILABLE"]);
    expect(countedNumbers()).toEqual(upTo(2));
  });

  test("by storage that never answers", async () => {
    vi.stubGlobal("indexedDB", { open: () => ({}) });
    const client = tracker();
    void client.trackEvents(numbered(2));
    await pass(3_100);
    await pass(0);
    expect(countedNumbers()).toEqual(upTo(2));
  });
});

describe("flush and shutdown", () => {
  test("a flush that is limited rejects when its time is over, and one that nobody waits for harms nobody", async () => {
    service.always = "unreachable";
    const client = tracker();
    await client.trackEvents(numbered(1));
    const late = client.flush({ timeoutMs: 1_000 });
    void client.flush({ timeoutMs: 1_000 });
    const controller = new AbortController();
    const aborted = client.flush({ signal: controller.signal });
    controller.abort();
    await expect(aborted).rejects.toMatchObject({ code: "ABORTED" });
    await pass(1_100);
    await expect(late).rejects.toBeInstanceOf(AnalyticsError);
    await expect(late).rejects.toMatchObject({ code: "TIMEOUT" });
  });

  test("a shutdown sends what waits, takes nothing more, and leaves the rest to later pages", async () => {
    const client = tracker();
    await client.trackEvent({ eventType: "click", properties: { n: 0 } });
    await client.shutdown();
    expect(countedNumbers()).toEqual([0]);
    await client.trackEvent({ eventType: "click", properties: { n: 1 } });
    expect(dropped("shut-down")).toHaveLength(1);

    service.always = "unreachable";
    const cut = tracker();
    await cut.trackEvents(numbered(3, 2));
    const ended = cut.shutdown({ timeoutMs: 2_000 });
    await pass(2_100);
    await ended;
    service.always = undefined;
    await flushed(tracker());
    expect(countedNumbers()).toEqual([0, 2, 3, 4]);
  });

  test("limits beyond what timers can are no limits", async () => {
    const client = tracker({ requestTimeoutMs: Number.POSITIVE_INFINITY });
    service.faults.push("unreachable");
    await client.trackEvents(numbered(1));
    let isFlushed = false;
    void client.flush({ timeoutMs: Number.POSITIVE_INFINITY }).then(() => {
      isFlushed = true;
    });
    await pass(5_000);
    expect(isFlushed).toBe(true);
    expect(errors.map((error) => error.code)).toEqual(["NETWORK_ERROR"]);
  });

  test.each(["indexeddb", "memory"] as const)("a shutdown ends, and flushes end with it (%s)", async (storage) => {
    const fetch = () => new Promise<Response>(() => {});
    const client = tracker({ fetch, storage });
    await client.trackEvents(numbered(2));
    const flushing = client.flush();
    const ended = client.shutdown({ timeoutMs: 1_000 });
    await pass(1_600);
    await ended;
    await flushing;
    expect(dropped("shut-down")).toHaveLength(storage === "memory" ? 2 : 0);
  });

  test("what memory held at a shutdown is told of", async () => {
    service.always = "unreachable";
    const client = tracker({ storage: "memory" });
    await client.trackEvents(numbered(3));
    const ended = client.shutdown({ timeoutMs: 100 });
    await pass(200);
    await ended;
    expect(dropped("shut-down")).toHaveLength(3);
  });

  test("stopping sends what waits, and starting again goes on", async () => {
    const client = tracker();
    await client.trackEvent({ eventType: "click", properties: { n: 0 } });
    client.stop();
    await settle();
    expect(countedNumbers()).toEqual([0]);
    client.start();
    await client.trackEvent({ eventType: "click", properties: { n: 1 } });
    await pass(2_100);
    expect(countedNumbers()).toEqual([0, 1]);
  });
});
