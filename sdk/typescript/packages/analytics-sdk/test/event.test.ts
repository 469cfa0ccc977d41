import { describe, expect, test } from "vitest";
import { AnalyticsError } from "../src/error.js";
import { readEvent, retime, writeEvent } from "../src/event.js";
import { uuid7, uuid7Time } from "../src/uuid.js";

const NOW = Date.parse("2026-11-27T12:00:00.250Z");

test("an event is given an id and a time of the moment it is written", () => {
  const event = readEvent(writeEvent({ eventType: "click" }, NOW));
  expect(event.timestamp).toBe("2026-11-27T12:00:00.250Z");
  expect(uuid7Time(event.eventId)).toBe(NOW);
});

test("what the caller gave stays", () => {
  const given = {
    eventId: "mine",
    eventType: "click",
    userId: "ann",
    campaignId: "c",
    creativeId: "d",
    source: "web",
    seq: 7,
    properties: { snake_case: 1, nested: [{ camelCase: null }] },
    timestamp: "2026-11-27T13:00:00+01:00",
  };
  expect(readEvent(writeEvent(given, NOW))).toEqual(given);
  expect(readEvent(writeEvent({ ...given, timestamp: new Date(5) }, NOW)).timestamp).toBe("1970-01-01T00:00:00.005Z");
  expect(readEvent(writeEvent({ ...given, timestamp: 5 }, NOW)).timestamp).toBe("1970-01-01T00:00:00.005Z");
});

test("what is no JSON reads as an event without members", () => {
  expect(readEvent("{nonsense")).toEqual({});
});

test("what cannot be written is one kind of error", () => {
  const cyclic: Record<string, unknown> = {};
  cyclic.self = cyclic;
  const bad = [
    null,
    {},
    { eventType: "" },
    { eventType: 5 },
    { eventType: "x", properties: cyclic },
    { eventType: "x", properties: { big: 1n } },
    { eventType: "x", timestamp: Number.NaN },
  ];
  for (const payload of bad) {
    const write = () => writeEvent(payload as never, NOW);
    expect(write).toThrow(AnalyticsError);
    expect(write).toThrow(expect.objectContaining({ code: "INVALID_EVENT", retryable: false }));
  }
});

describe("a time that the service refuses", () => {
  const ahead = NOW + 3_600_000;

  test("moves once, with the id staying", () => {
    const json = writeEvent({ eventType: "x" }, ahead);
    const moved = retime(json, -3_600_000, NOW) as string;
    expect(readEvent(moved)).toEqual({ ...readEvent(json), timestamp: new Date(NOW).toISOString() });
    expect(retime(moved, -3_600_000, NOW)).toBeUndefined();
  });

  test("stays when the caller set it", () => {
    expect(retime(writeEvent({ eventType: "x", timestamp: ahead }, NOW), -3_600_000, NOW)).toBeUndefined();
    const own = writeEvent({ eventType: "x", eventId: "mine" }, ahead);
    expect(retime(own, -3_600_000, NOW)).toBeUndefined();
    const other = writeEvent({ eventType: "x", eventId: uuid7(NOW) }, ahead);
    expect(retime(other, -3_600_000, NOW)).toBeUndefined();
  });

  test("stays when the clock is right, or the moved time is still ahead", () => {
    expect(retime(writeEvent({ eventType: "x" }, ahead), 0, NOW)).toBeUndefined();
    expect(retime(writeEvent({ eventType: "x" }, ahead), -60_000, NOW)).toBeUndefined();
  });
});
