import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { AnalyticsClient, type EventPayload } from "@tallyhouse/analytics-sdk";
import type axe from "axe-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
import { launch } from "../../sdk/typescript/e2e/support/browser.js";
import { Service } from "../../sdk/typescript/e2e/support/service.js";

export { launch, Service };

export type Browser = Awaited<ReturnType<typeof launch>>;
export type Context = Awaited<ReturnType<Browser["newContext"]>>;
export type Page = Awaited<ReturnType<Context["newPage"]>>;

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SITE = fileURLToPath(new URL("../out", import.meta.url));
/** Longest wait for ClickHouse to have what was acknowledged, in milliseconds. */
const COUNTED_MS_MAX = 30_000;

export const PHONE = { width: 390, height: 844 };
export const DESKTOP = { width: 1280, height: 800 };

/** A service that serves the built dashboard and requires no token. */
export const openService = (settings: Record<string, string> = {}) =>
  new Service({ TALLYHOUSE_AUTH_HS256_SECRET: undefined, TALLYHOUSE_DASHBOARD_DIR: SITE, ...settings });

/** A service that serves the built dashboard and requires tokens. */
export const closedService = (settings: Record<string, string> = {}) =>
  new Service({ TALLYHOUSE_DASHBOARD_DIR: SITE, ...settings });

/** What a page has done that it must not do. */
export interface Watched {
  page: Page;
  /** Errors of scripts and of the content security policy, and requests to other origins. */
  wrongs: string[];
}

/** Opens a page, and notes what goes wrong on it. */
export async function open(context: Context, url: string): Promise<Watched> {
  const page = await context.newPage();
  const { origin } = new URL(url);
  const wrongs: string[] = [];
  page.on("pageerror", (error) => wrongs.push(`error: ${error.message}`));
  page.on("console", (message) => {
    // A refused request is no fault of the page.
    const isRefusal = message.text().startsWith("Failed to load resource");
    if (message.type() === "error" && !isRefusal) wrongs.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    const target = new URL(request.url());
    if (/^https?:$/.test(target.protocol) && target.origin !== origin) wrongs.push(`request: ${request.url()}`);
  });
  await page.goto(url);
  return { page, wrongs };
}

/** What the tests of one file share: a browser, and a context for each test. */
export interface Pages {
  /** The context of the current test. */
  context(): Context;
  /** Opens a page of a service or of another server. What goes wrong on it fails the test. */
  open(site: { url: string }, path: string): Promise<Page>;
  /** Replaces the context of the current test. */
  renew(options: ContextOptions): Promise<void>;
  /** Takes what has gone wrong so far as intended. */
  forgive(): void;
}

type ContextOptions = NonNullable<Parameters<Browser["newContext"]>[0]>;

/** Opens a browser for the tests of a file, and closes it after them. */
export function browse(): Pages {
  let browser: Browser;
  let context: Context;
  const watched: Watched[] = [];

  beforeAll(async () => {
    browser = await launch();
  });

  afterAll(() => browser?.close());

  beforeEach(async () => {
    context = await browser.newContext({ viewport: DESKTOP });
  });

  afterEach(async () => {
    await context.close();
    expect(watched.splice(0).flatMap(({ wrongs }) => wrongs)).toEqual([]);
  });

  return {
    context: () => context,
    async open(site, path) {
      const opened = await open(context, site.url + path);
      watched.push(opened);
      return opened.page;
    },
    async renew(options) {
      await context.close();
      context = await browser.newContext({ viewport: DESKTOP, ...options });
    },
    forgive() {
      for (const { wrongs } of watched) wrongs.splice(0);
    },
  };
}

/** Fails for any finding of axe. */
export async function expectAccessible(page: Page): Promise<void> {
  // Through the protocol: the page's policy does not let a script element in.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => (window as unknown as { axe: typeof axe }).axe.run());
  expect(
    violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map((node) => node.html).join()}`),
  ).toEqual([]);
}

/** Fails when a page is wider than its window. Charts take their new width a moment after the window. */
export async function expectFits(page: Page): Promise<void> {
  const beyond = () => page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  await expect.poll(beyond).toBeLessThanOrEqual(0);
}

/** Sends events, and returns when they are counted. */
export async function send(service: Service, events: EventPayload[], token?: string): Promise<void> {
  const client = new AnalyticsClient({ baseUrl: service.url, apiKey: token, storage: "memory" });
  await client.trackEvents(events);
  await client.flush();
  const sentAt = Date.now();
  const day = (ms: number) => new Date(ms).toISOString().slice(0, 10);
  for (;;) {
    const question = { startDate: day(sentAt), endDate: day(sentAt), metrics: ["events"] };
    const { freshness } = await client.getMetricsSummary(question);
    if (Date.parse(freshness.watermark ?? "") >= sentAt) break;
    if (Date.now() - sentAt > COUNTED_MS_MAX) throw new Error("what was acknowledged is not counted in time");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await client.shutdown();
}

/** So many events of three users, two campaigns and three types, one a second up to now. */
export function sample(count: number, prefix = "e"): EventPayload[] {
  const now = Date.now();
  return Array.from({ length: count }, (_, n) => ({
    eventId: `${prefix}-${n}`,
    eventType: ["impression", "impression", "click", "signup"][n % 4] as string,
    userId: `user_${n % 3}`,
    campaignId: n % 4 === 3 ? undefined : ["camp_a", "camp_b"][n % 2],
    timestamp: new Date(now - (count - n) * 1_000),
    properties: { n, plan: n % 2 ? "pro" : "free" },
  }));
}
