import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type axe from "axe-core";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { AnalyticsClient } from "../packages/analytics-sdk/src/index.js";
import type { GrpcPage } from "./pages/grpc.js";
import { launch, open } from "./support/browser.js";
import { Service } from "./support/service.js";
import { Site } from "./support/site.js";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const NOT_FOUND = 5;
const PERMISSION_DENIED = 7;

let browser: Browser;
let context: BrowserContext;
let service: Service;
let site: Site;

beforeAll(async () => {
  site = await new Site().start(["grpc.ts", "table.tsx"]);
  service = await new Service().start();
  site.upstream = service.url;
  browser = await launch();
});

afterAll(async () => {
  await browser?.close();
  await site?.stop();
  await service?.stop();
});

beforeEach(async () => {
  context = await browser.newContext();
});

afterEach(() => context.close());

/** A client in Node.js, with events of an organization sent and counted. */
async function withEvents(org: string, count: number): Promise<AnalyticsClient> {
  const client = new AnalyticsClient({ baseUrl: service.url, apiKey: service.token(org) });
  const events = Array.from({ length: count }, (_, n) => {
    const [eventType, campaignId] = n % 2 ? ["click", "camp_1"] : ["impression", "camp_2"];
    return { eventType, campaignId, eventId: `e-${n}`, userId: `user_${n % 3}`, properties: { snake_case: n } };
  });
  await client.trackEvents(events);
  await client.flush();
  await service.counted(org);
  return client;
}

describe("the core", () => {
  test("reads what it sent: every question has the answer's form", async () => {
    const client = await withEvents("reads", 120);
    const today = new Date().toISOString().slice(0, 10);
    const days = { startDate: today, endDate: today };
    const walked: string[] = [];
    for await (const event of client.getEvents({ pageSize: 50, eventType: ["click", "impression"] }))
      walked.push(event.eventId);
    expect(walked).toHaveLength(120);
    expect(new Set(walked).size).toBe(120);
    expect(await client.getEvent("e-7")).toMatchObject({
      eventType: "click",
      userId: "user_1",
      properties: { snake_case: 7 },
    });
    await expect(client.getEvent("nobody")).rejects.toMatchObject({ code: "NOT_FOUND", status: 404, retryable: false });
    const summary = await client.getMetricsSummary({
      ...days,
      metrics: ["events", "active_users", "ctr", "events:click"],
    });
    expect(summary).toMatchObject({ orgId: "reads", startDate: today, endDate: today });
    expect(summary.metrics.map(({ name, total }) => [name, total])).toEqual([
      ["events", 120],
      ["active_users", 3],
      ["ctr", 1],
      ["events:click", 60],
    ]);
    expect(Date.parse(summary.freshness.watermark ?? "")).toBeGreaterThan(Date.now() - 60_000);
    expect(await client.getDailyActiveUsers(days)).toMatchObject({ daily: [{ date: today, value: 3 }] });
    expect((await client.getTopUsers({ window: "1h", limit: 2 })).users).toEqual([
      { userId: "user_0", events: 40 },
      { userId: "user_1", events: 40 },
    ]);
    const { campaigns } = await client.getTopCampaigns();
    expect(campaigns).toEqual([
      { campaignId: "camp_1", events: 60, impressions: 0, clicks: 60 },
      { campaignId: "camp_2", events: 60, impressions: 60, clicks: 0 },
    ]);
    const from = new Date(Date.now() - 3_600_000);
    const stats = await client.getStats({ campaignId: "camp_1", from, to: new Date(Date.now() + 60_000) });
    expect(stats.series.reduce((sum, bucket) => sum + bucket.clicks, 0)).toBe(60);
    expect(await client.getReadiness()).toMatchObject({ status: "ready", clickhouse: "up", segments: { parked: 0 } });
    await expect(client.getTopUsers({ limit: 5_000 })).rejects.toMatchObject({
      code: "VALIDATION_ERROR",
      details: [{ field: "limit" }],
    });
    const other = new AnalyticsClient({ baseUrl: service.url, apiKey: service.token("reads", "ingest") });
    await expect(other.getTopUsers()).rejects.toMatchObject({ code: "PERMISSION_DENIED", status: 403 });
    await client.shutdown();
  });
});

describe("grpc-web in the browser", () => {
  test("unary calls and a server's stream", async () => {
    const page = await open(context, `${site.url}/page/grpc`);
    const call = [service.token("grpc"), "camp_grpc"] as const;
    const answer = await page.evaluate(([token, id]) => (window as unknown as GrpcPage).watchAndSend(token, id), call);
    expect(answer.seen).toContain("last ACCEPTED");
    expect(answer).toMatchObject({ accepted: 2, impressions: 2 });
  });

  test("write keys, subscriptions and segments", async () => {
    const page = await open(context, `${site.url}/page/grpc`);
    const token = service.token("grpc-admin", "admin read");
    expect(await page.evaluate((token) => (window as unknown as GrpcPage).administer(token), token)).toEqual({
      keys: ["page"],
      revoked: ["page"],
      subscriptions: 0,
    });
    const codeFor = (token: string) =>
      page.evaluate((token) => (window as unknown as GrpcPage).codeOfSegments(token), token);
    expect(await codeFor(token)).toBe(0);
    expect(await codeFor(service.token("grpc-admin", "read"))).toBe(PERMISSION_DENIED);
  });

  test("an error has its code", async () => {
    const page = await open(context, `${site.url}/page/grpc`);
    const code = await page.evaluate(
      (token) => (window as unknown as GrpcPage).codeOfMissing(token),
      service.token("grpc"),
    );
    expect(code).toBe(NOT_FOUND);
  });
});

describe("the events table in the browser", () => {
  const openTable = (org: string) => open(context, `${site.url}/page/table?token=${service.token(org)}`);

  async function expectAccessible(page: Page): Promise<void> {
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => (window as unknown as { axe: typeof axe }).axe.run());
    expect(
      violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map((node) => node.html).join()}`),
    ).toEqual([]);
  }

  test("walks through all events as it is scrolled by keyboard, and has no accessibility findings", async () => {
    await withEvents("table", 230);
    const page = await openTable("table");
    const status = page.getByRole("status");
    await status.getByText("50 events loaded, more follow").waitFor({ state: "attached" });
    await expectAccessible(page);
    expect(await page.getByRole("row").count()).toBeLessThan(40);
    await page.locator("#total").getByText("230").waitFor();
    await page.locator('[role="row"][tabindex="0"]').focus();
    for (const loaded of [100, 150, 200, 230]) {
      await page.keyboard.press("End");
      await status.getByText(`${loaded} events loaded`).waitFor({ state: "attached" });
    }
    await page.keyboard.press("End");
    await page.keyboard.press("Enter");
    await page
      .locator("#chosen")
      .getByText(/^e-\d+$/)
      .waitFor();
    expect(await page.evaluate(() => document.activeElement?.getAttribute("data-index"))).toBe("229");
    await expectAccessible(page);
  });

  test("under StrictMode one click is one event", async () => {
    const page = await openTable("strict");
    await page.getByText("There are no events yet.").waitFor();
    await page.getByRole("button", { name: "Track" }).click();
    await expect.poll(async () => (await service.counted("strict")).total).toBe(1);
    expect((await service.counted("strict")).ids).toHaveLength(1);
  });

  test("with a token that is not good, says so", async () => {
    const page = await open(context, `${site.url}/page/table?token=nonsense`);
    await page.getByRole("alert").getByText("UNAUTHENTICATED").waitFor();
    await expectAccessible(page);
  });
});
