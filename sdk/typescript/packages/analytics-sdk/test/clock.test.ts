import { expect, test, vi } from "vitest";
import { ServiceClock, setClock } from "../src/clock.js";

const NOW = Date.parse("2026-11-27T12:00:00Z");

/** What the clock learns from a `Date` so many milliseconds from now, on an answer that took so long. */
function learned(dateMs: number, tookMs: number): number {
  vi.useFakeTimers({ now: NOW });
  const clock = new ServiceClock();
  setClock(clock, new Date(NOW + dateMs).toUTCString(), NOW - tookMs);
  vi.useRealTimers();
  return clock.offsetMs;
}

test("a difference that slow answers and whole seconds do not explain is the device's error", () => {
  expect(learned(0, 100)).toBe(0);
  expect(learned(-14_000, 15_000)).toBe(0);
  expect(learned(3_600_000, 0)).toBe(3_600_500);
  expect(learned(-3_600_000, 1_000)).toBe(-3_599_000);
});

test("an answer that waited while the device slept says nothing about its clock", () => {
  expect(learned(-7_199_000, 7_200_000)).toBe(0);
  expect(learned(-1_000, 7_200_000)).toBe(0);
  expect(learned(-86_400_000, 7_200_000)).toBe(-82_799_500);
});

test("what is no date changes nothing", () => {
  const clock = new ServiceClock();
  setClock(clock, null, 0);
  setClock(clock, "soon", 0);
  expect(clock.offsetMs).toBe(0);
});
