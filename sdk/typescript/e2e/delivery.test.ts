import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import type { AnalyticsClientOptions } from "../packages/analytics-sdk/src/index.js";
import type { TrackerPage } from "./pages/tracker.js";
import { launch, open } from "./support/browser.js";
import { Service } from "./support/service.js";
import { errorBody, Site } from "./support/site.js";

type Options = Partial<AnalyticsClientOptions> & { beacon?: string };

let browser: Browser;
let context: BrowserContext;
let service: Service;
let site: Site;
let org: string;
let tests = 0;

beforeAll(async () => {
  site = await new Site().start(["tracker.ts"]);
  service = await new Service({ TALLYHOUSE_CORS_ORIGINS: site.url }).start();
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
  await site?.stop();
  await service?.stop();
});

beforeEach(async () => {
  site.reset();
  site.upstream = service.url;
  org = `delivery-${++tests}`;
  context = await browser.newContext();
});

afterEach(() => context.close());

/** A page with a client of the test's organization. */
async function tab(options: Options = {}, from = service): Promise<Page> {
  const page = await open(context, `${site.url}/page/tracker`);
  await make(page, options, from);
  return page;
}

async function make(page: Page, options: Options = {}, from = service): Promise<void> {
  const given = { apiKey: from.token(org, "ingest"), ...options };
  await page.evaluate((given) => (window as unknown as TrackerPage).make(given as never), given);
}

const track = (page: Page, count: number, from = 0) => {
  return page.evaluate(([count, from]) => (window as unknown as TrackerPage).track(count, from), [
    count,
    from,
  ] as const);
};
const trackMany = (page: Page, count: number, from = 0) => {
  const numbers = [count, from] as const;
  return page.evaluate(([count, from]) => (window as unknown as TrackerPage).trackMany(count, from), numbers);
};
const flush = (page: Page) => page.evaluate(() => (window as unknown as TrackerPage).client.flush());
const told = (page: Page) => {
  return page.evaluate(() => {
    const { errors, drops, verdicts } = window as unknown as TrackerPage;
    const sum = (of: "accepted" | "duplicates") => verdicts.reduce((total, report) => total + report[of], 0);
    const faults = verdicts.flatMap((report) => [...report.rejected, ...report.conflicts]);
    return { errors, drops, accepted: sum("accepted"), duplicates: sum("duplicates"), faults };
  });
};

/** So many events are counted, each once. */
async function expectCounted(count: number, from = service): Promise<void> {
  await site.idle();
  const { total, ids } = await from.counted(org);
  expect({ total, stored: ids.length, distinct: new Set(ids).size }).toEqual({
    total: count,
    stored: count,
    distinct: count,
  });
}

test("a reload with a full queue loses nothing and sends nothing twice", async () => {
  site.always = { status: 503, headers: { "retry-after": "1" }, body: errorBody("OVERLOADED") };
  const page = await tab();
  await track(page, 950);
  await trackMany(page, 50, 950);
  await expectCounted(0);
  await page.reload();
  await page.waitForFunction(() => "isReady" in window);
  site.always = undefined;
  site.calls.length = 0;
  await make(page);
  await flush(page);
  expect(site.sent).toBe(1_000);
  expect(await told(page)).toMatchObject({ accepted: 1_000, duplicates: 0, drops: [] });
  await expectCounted(1_000);
});

test("offline and back: what was tracked meanwhile counts once", async () => {
  const page = await tab();
  await track(page, 10);
  await flush(page);
  await context.setOffline(true);
  await track(page, 200, 10);
  await expectCounted(10);
  await context.setOffline(false);
  await flush(page);
  await expectCounted(210);
});

test("an answer that gets lost is asked for again under the same key, and counts once", async () => {
  site.faults.push("lost-answer", { delayMs: 50 }, "lost-answer");
  const page = await tab();
  await trackMany(page, 300);
  await flush(page);
  expect(site.calls.length).toBe(5);
  expect(new Set(site.calls.map((call) => call.key)).size).toBe(3);
  // The service gives its first answer again: they were accepted.
  expect(await told(page)).toMatchObject({ accepted: 300, duplicates: 0 });
  await expectCounted(300);
});

test("two tabs send one after the other, and nothing twice", async () => {
  const tabs = [await tab({ flushAtEvents: 7 }), await tab({ flushAtEvents: 7 })];
  await Promise.all(
    tabs.map(async (page, index) => {
      for (let round = 0; round < 10; round++) await track(page, 30, (index * 10 + round) * 30);
      await flush(page);
    }),
  );
  expect(site.sent).toBe(600);
  await expectCounted(600);
});

test("429 and 503 are waited out as long as they say", async () => {
  const limited = { status: 429, headers: { "retry-after": "2" }, body: errorBody("RATE_LIMITED") };
  const overloaded = { status: 503, headers: { "retry-after": "1" }, body: errorBody("OVERLOADED") };
  site.faults.push(limited, overloaded);
  const page = await tab();
  await trackMany(page, 10);
  await flush(page);
  const [first, second, third] = site.calls.map((call) => call.at) as [number, number, number];
  expect(second - first).toBeGreaterThanOrEqual(2_000);
  expect(third - second).toBeGreaterThanOrEqual(1_000);
  expect(site.calls.length).toBe(3);
  await expectCounted(10);
});

test("a sign-in page of the network in place of the service costs nothing", async () => {
  const portal = { status: 200, headers: { "content-type": "text/html" }, body: "<html>sign in</html>" };
  site.faults.push(portal, portal);
  const page = await tab();
  await trackMany(page, 10);
  await flush(page);
  await expectCounted(10);
});

test("a page that is left at once has sent its events", async () => {
  const page = await tab();
  await flush(page);
  await page.evaluate(() => void (window as unknown as TrackerPage).track(5, 0));
  await page.goto("about:blank");
  await site.called(1);
  await expectCounted(5);
});

test("a page of another origin that is left sends its events by a beacon, with a write key", async () => {
  const { text } = await service.createWriteKey(org);
  const beacon = `${service.url}/beacon?write_key=${text}`;
  const page = await tab({ baseUrl: service.url, apiKey: text, orgId: org, beacon });
  await track(page, 3);
  await flush(page);
  await page.evaluate(() => void (window as unknown as TrackerPage).track(5, 3));
  await page.goto("about:blank");
  await expect.poll(async () => (await service.counted(org)).total).toBe(8);
  const next = await tab({ baseUrl: service.url, apiKey: text, orgId: org });
  await flush(next);
  expect(await told(next)).toMatchObject({ accepted: 0, errors: [] });
  await expectCounted(8);
});

test("a page that closes in the middle of a flush, and its successor, count each event once", async () => {
  site.always = { delayMs: 300 };
  const page = await tab();
  await trackMany(page, 500);
  await site.called(2);
  await page.close({ runBeforeUnload: false });
  site.always = undefined;
  const next = await tab();
  await flush(next);
  await expectCounted(500);
});

test("a browser that crashes in the middle of a flush counts each event once", async () => {
  site.always = { delayMs: 200 };
  const page = await tab();
  await trackMany(page, 500);
  await site.called(2);
  await page.goto("chrome://crash").catch(() => {});
  site.always = undefined;
  const next = await tab();
  await flush(next);
  await expectCounted(500);
});

test("what the service rejects is told with its reason, and holds up nothing", async () => {
  const page = await tab();
  await page.evaluate(async () => {
    const { client } = window as unknown as TrackerPage;
    const hour = 3_600_000;
    await client.trackEvents([
      { eventType: "page_view", eventId: "good", timestamp: new Date() },
      { eventType: "not a type", eventId: "bad-type" },
      { eventType: "page_view", eventId: "ahead", timestamp: new Date(Date.now() + hour) },
      { eventType: "page_view", eventId: "long ago", timestamp: "1999-01-01T00:00:00Z" },
      { eventType: "page_view", properties: { lone: "\ud800" }, eventId: "surrogate" },
    ]);
    await client.trackEvents([
      { eventType: "page_view", eventId: "only-ahead", timestamp: new Date(Date.now() + hour) },
    ]);
    await client.trackEvents([{ eventType: "page_view", eventId: "only-old", timestamp: "1999-01-01T00:00:00Z" }]);
    await client.trackEvents([{ eventType: "page_view", eventId: "good", properties: { other: true } }]);
    await client.flush();
  });
  const { faults } = await told(page);
  const codes = Object.fromEntries(faults.map(({ event, code }) => [event.eventId, code]));
  expect(codes).toEqual({
    "bad-type": "INVALID",
    ahead: "IN_FUTURE",
    "long ago": "TOO_OLD",
    surrogate: "INVALID",
    "only-ahead": "IN_FUTURE",
    "only-old": "TOO_OLD",
    good: "CONFLICT",
  });
  await expectCounted(1);
});

test("a device whose clock is an hour ahead still counts, at the service's time", async () => {
  const page = await context.newPage();
  await page.clock.install({ time: Date.now() + 3_600_000 });
  await page.goto(`${site.url}/page/tracker`);
  await page.waitForFunction(() => "isReady" in window);
  await page.clock.resume();
  await make(page);
  await track(page, 5);
  await flush(page);
  await track(page, 5, 5);
  await flush(page);
  expect((await told(page)).faults).toEqual([]);
  await expectCounted(10);
});

test("from another origin: events, their closing page, and the service's clock, which CORS shows", async () => {
  const page = await tab({ baseUrl: service.url });
  await trackMany(page, 120);
  await flush(page);
  expect(await told(page)).toMatchObject({ accepted: 120, errors: [] });
  await page.evaluate(() => void (window as unknown as TrackerPage).track(5, 120));
  await page.goto("about:blank");
  const next = await tab({ baseUrl: service.url });
  await flush(next);
  await expectCounted(125);
});

test("a service that is killed in the middle of a flush, and its limits, count each event once", async () => {
  const limited = await new Service({
    TALLYHOUSE_RATE_LIMIT_ORG_EVENTS_PER_SECOND: "500",
    TALLYHOUSE_RATE_LIMIT_WINDOW_SECONDS: "1",
  }).start();
  try {
    site.upstream = limited.url;
    const page = await tab({}, limited);
    await trackMany(page, 2_000);
    await site.called(4);
    await limited.kill();
    await limited.start();
    await trackMany(page, 100, 2_000);
    await flush(page);
    expect((await told(page)).errors.map((error) => error.code)).toContain("RATE_LIMITED");
    await expectCounted(2_100, limited);
  } finally {
    await limited.stop();
  }
});
