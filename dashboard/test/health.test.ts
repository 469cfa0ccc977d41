import { AnalyticsError, type Readiness } from "@tallyhouse/analytics-sdk";
import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import { expect, test } from "vitest";
import { HealthState, type HealthStateProps } from "../src/panels/health";

const READY: Readiness = {
  status: "ready",
  reasons: [],
  clickhouse: "up",
  segments: { waiting: 0, parked: 0, rows: 0 },
  audit: { lastAuditAt: null, hours: 0, repaired: 0, different: 0, undecided: 0, lastError: "" },
};

/** The text that is shown for an answer. */
function shown(answer: { data?: Readiness; error?: AnalyticsError }): string {
  const props = { answer: { data: undefined, error: null, refetch: () => {}, ...answer } };
  const html = renderToStaticMarkup(createElement(HealthState, props as unknown as HealthStateProps));
  return html.replaceAll(/<[^>]*>/g, " ").replaceAll(/\s+/g, " ");
}

test("a service that is ready takes and counts events", () => {
  expect(shown({ data: READY })).toContain("ready Events are taken and counted.");
});

test("the reasons of a service that refuses every event are shown, and that it does", () => {
  const reasons = [{ code: "DISK_FULL", message: "the disk of the log is full", refusesEvents: true }];
  const text = shown({ data: { ...READY, status: "refusing", reasons } });
  expect(text).toContain("refusing Every event is refused.");
  expect(text).toContain("DISK_FULL the disk of the log is full");
  expect(text).not.toContain("are taken");
});

test("an older state is not shown as the current one when the service no longer answers", () => {
  const error = new AnalyticsError("NETWORK_ERROR", "the service cannot be reached");
  const text = shown({ data: READY, error });
  expect(text).toContain("NETWORK_ERROR");
  expect(text).not.toContain("ready");
});
