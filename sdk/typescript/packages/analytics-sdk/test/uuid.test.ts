import { expect, test } from "vitest";
import { orderedIds, uuid7, uuid7Time } from "../src/uuid.js";

const FORM = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

test("an id is a UUIDv7 of its time", () => {
  for (const ms of [0, 1, 1_795_000_000_123, 2 ** 48 - 1]) {
    const id = uuid7(ms);
    expect(id).toMatch(FORM);
    expect(uuid7Time(id)).toBe(ms);
  }
});

test("no two ids are the same", () => {
  expect(new Set(Array.from({ length: 10_000 }, () => uuid7(5))).size).toBe(10_000);
});

test("only a UUIDv7 has a time", () => {
  for (const text of ["", "e-1", "0199c2f0-7d6c-4a51-9d2b-6a4f3c1e8b77"]) expect(uuid7Time(text)).toBeUndefined();
});

test("ordered ids sort as they were made, also within a millisecond and when the clock goes back", () => {
  const next = orderedIds();
  const ids = [...Array.from({ length: 10_000 }, () => next(1_000)), next(999), next(1_001), next(50), next(2_000)];
  expect([...ids].sort()).toEqual(ids);
  expect(ids.every((id) => FORM.test(id))).toBe(true);
});
