import { expect, test, vi } from "vitest";
import { AnalyticsClient } from "../src/index.js";
import { FakeService } from "./support/service.js";

test("without a window, a client does nothing until it is used, and then works from memory", async () => {
  expect(globalThis.document).toBeUndefined();
  const timer = vi.spyOn(globalThis, "setTimeout");
  const service = new FakeService();
  const client = new AnalyticsClient({ baseUrl: "https://analytics.example", fetch: service.fetch });
  await client.flush();
  expect(timer).not.toHaveBeenCalled();
  expect(service.calls).toEqual([]);
  await client.trackEvent({ eventType: "render", userId: "ann" });
  expect(timer.mock.results.every(({ value }) => value.hasRef() === false)).toBe(true);
  await client.shutdown();
  expect(service.counted.size).toBe(1);
});
