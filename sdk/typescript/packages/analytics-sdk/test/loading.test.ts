import "fake-indexeddb/auto";
import { IDBFactory } from "fake-indexeddb";
import { beforeEach, expect, test, vi } from "vitest";
import { type AnalyticsError, EventTracker } from "../src/index.js";
import { FakePage, settle } from "./support/page.js";
import { FakeService, json } from "./support/service.js";

const loading = vi.hoisted(() => ({ sender: async () => {}, resolution: async () => {} }));

vi.mock("../src/delivery/sender.js", async (original) => {
  await loading.sender();
  return original();
});
vi.mock("../src/delivery/resolution.js", async (original) => {
  await loading.resolution();
  return original();
});

let service: FakeService;
let page: FakePage;
let errors: AnalyticsError[];

beforeEach(() => {
  vi.resetModules();
  vi.stubGlobal("indexedDB", new IDBFactory());
  service = new FakeService();
  page = new FakePage().install();
  errors = [];
  loading.sender = async () => {};
  loading.resolution = async () => {};
});

const tracker = () => {
  const onError = (error: AnalyticsError) => errors.push(error);
  const baseUrl = "https://analytics.example";
  return new EventTracker({ baseUrl, apiKey: "key", fetch: service.fetch, onError, backoffMsMin: 1, backoffMsMax: 20 });
};

test("a page that closes before the sender is loaded has sent its events, and its successor confirms them", async () => {
  loading.sender = () => new Promise(() => {});
  const early = tracker();
  void early.trackEvent({ eventType: "page_view" });
  page.close();
  expect(service.calls).toMatchObject([{ keepalive: true, token: "Bearer key", ids: { length: 1 } }]);
  await settle();
  vi.resetModules();
  loading.sender = async () => {};
  await tracker().flush();
  expect(service.counted.size).toBe(1);
});

test("what decides about refusals is loaded when a call is refused, and again when that failed", async () => {
  let loads = 0;
  loading.resolution = async () => {
    loads++;
    if (loads === 1) throw new TypeError("failed to fetch dynamically imported module");
  };
  const client = tracker();
  await client.trackEvents([{ eventType: "click" }]);
  await client.flush();
  expect(loads).toBe(0);
  const undecided = { index: 0, code: "CONFLICT", field: "event_id", message: "is already there" };
  service.faults.push(() => json(202, { accepted: 0, duplicates: 0, rejected: [undecided] }));
  await client.trackEvents([{ eventType: "click" }]);
  await client.flush();
  expect(loads).toBeGreaterThan(0);
  expect(errors.map((error) => error.code)).toContain("NETWORK_ERROR");
  expect(service.calls.at(-1)?.key).toBe(service.calls.at(-2)?.key);
});
