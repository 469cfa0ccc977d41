// The libraries of other systems for browsers, unmodified, on a page of another origin in Chromium. A first
// call is answered 503 although the service took it, so that the library sends it again; what is left is sent while the
// page closes. All counts once.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { chromium } from "playwright-core";
import { LossyGateway } from "./lossy_gateway.js";
import { createWriteKey, eventsOf } from "./service.js";

const { TALLYHOUSE_URL = "", CHROMIUM_BIN = "/usr/bin/chromium" } = process.env;
const ARGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
// As the packages are published.
const SCRIPTS = {
  "/posthog.js": "node_modules/posthog-js/dist/array.js",
  "/segment.js": "node_modules/@segment/analytics-next/dist/umd/index.js",
};

let browser;
let site;
let siteUrl;
let writeKey;
let context;
let gateway;
let errors;

before(async () => {
  site = createServer((incoming, answer) => {
    const script = SCRIPTS[incoming.url];
    if (script) answer.writeHead(200, { "content-type": "text/javascript" }).end(readFileSync(script));
    else answer.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>Shop</title>");
  });
  await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));
  // Another name of this machine: another site than the service.
  siteUrl = `http://localhost:${site.address().port}`;
  browser = await chromium.launch({ executablePath: CHROMIUM_BIN, args: ARGS });
  writeKey = await createWriteKey("browser");
});

after(async () => {
  await browser?.close();
  site?.close();
});

beforeEach(async () => {
  context = await browser.newContext();
  errors = [];
});

afterEach(async () => {
  await context.close();
  await gateway?.stop();
  assert.deepEqual(errors, []);
});

/** A page with a script of the site, behind a gateway that loses the first answer to this path. */
async function openPage(script, lost) {
  gateway = await new LossyGateway(TALLYHOUSE_URL, [lost]).start();
  const page = await context.newPage();
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(`${siteUrl}/shop`);
  if (script) await page.addScriptTag({ url: script });
  return page;
}

/** The counts that the service answered for a path: what was accepted, and what was known already. */
function counts(path) {
  const answers = gateway.calls.filter((call) => call.path.split("?")[0] === path).map((call) => JSON.parse(call.body));
  const sum = (name) => answers.reduce((sum, answer) => sum + answer[name], 0);
  return { accepted: sum("accepted"), duplicates: sum("duplicates"), rejected: answers.flatMap((answer) => answer.rejected) };
}

test("PostHog's library for browsers, and its beacon when the page closes", async () => {
  const page = await openPage("/posthog.js", "/e/");
  await page.evaluate(
    ([key, host]) => {
      // A browser without a window is a robot to it, and robots' events are dropped.
      window.posthog.init(key, { api_host: host, opt_out_useragent_filter: true });
      window.posthog.identify("ann");
      window.posthog.capture("browser_signed_up", { plan: "pro" });
    },
    [writeKey, gateway.url],
  );
  const isEvents = (call) => call.path.startsWith("/e/");
  await gateway.called((call) => isEvents(call) && JSON.parse(call.body).duplicates > 0);
  await page.evaluate(() => window.posthog.capture("browser_last_words"));
  await page.close({ runBeforeUnload: true });
  await gateway.called((call) => isEvents(call) && call.headers["sec-fetch-mode"] === "no-cors");
  const [signedUp] = await eventsOf("browser_signed_up", 1);
  assert.equal(signedUp.user_id, "ann");
  assert.equal(signedUp.properties.plan, "pro");
  await eventsOf("browser_last_words", 1);
  // The library's own: it saw the page, and saw it closed.
  await eventsOf("_pageview", 1);
  await eventsOf("_pageleave", 1);
  assert.deepEqual(counts("/e/").rejected, []);
});

test("Segment's library for browsers, and what is left when the page closes", async () => {
  const page = await openPage("/segment.js", "/v1/b");
  await page.evaluate(
    async ([key, host]) => {
      const delivery = { apiHost: `${host.slice("http://".length)}/v1`, protocol: "http" };
      const deliveryStrategy = { strategy: "batching", config: { size: 2 } };
      // As Segment's servers say it to the library.
      const integrations = { "Segment.io": { apiKey: key, ...delivery, deliveryStrategy } };
      const settings = { writeKey: key, cdnSettings: { integrations } };
      const [analytics] = await window.AnalyticsNext.AnalyticsBrowser.load(settings);
      window.analytics = analytics;
      await analytics.identify("ann");
      await analytics.track("Browser Order", { total: 5 });
    },
    [writeKey, gateway.url],
  );
  await gateway.called((call) => call.path === "/v1/b" && JSON.parse(call.body).duplicates > 0);
  await page.evaluate(() => window.analytics.track("Browser Farewell"));
  const before = gateway.calls.length;
  await page.close({ runBeforeUnload: true });
  await gateway.called(() => gateway.calls.length > before);
  const [order] = await eventsOf("Browser_Order", 1);
  assert.equal(order.user_id, "ann");
  assert.equal(order.properties.total, 5);
  await eventsOf("Browser_Farewell", 1);
  assert.deepEqual(counts("/v1/b"), { accepted: 3, duplicates: 2, rejected: [] });
});

test("a beacon that a page sends as it closes", async () => {
  const page = await openPage(undefined, "/nothing");
  await page.evaluate(
    ([key, host]) => {
      const event = { event_id: crypto.randomUUID(), event_type: "browser_beacon", user_id: "ann", timestamp: new Date() };
      const send = () => navigator.sendBeacon(`${host}/beacon?write_key=${key}`, JSON.stringify({ events: [event] }));
      send();
      window.addEventListener("pagehide", send);
    },
    [writeKey, gateway.url],
  );
  await gateway.called(() => gateway.calls.length === 1);
  await page.close({ runBeforeUnload: true });
  await gateway.called(() => gateway.calls.length === 2);
  assert.deepEqual(gateway.calls.map((call) => call.status), [204, 204]);
  const [event] = await eventsOf("browser_beacon", 1);
  assert.equal(event.user_id, "ann");
});
