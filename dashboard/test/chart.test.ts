import { expect, test } from "vitest";
import { filledByMinute } from "../src/chart/minutes";
import { formatAge, formatTime, lastDays } from "../src/format";
import { chartableOf } from "../src/sql/chartable";

test("minutes without impressions and clicks are there, with zero", () => {
  const bucket = { ts: "2026-02-10T00:02:00Z", impressions: 5, clicks: 1 };
  const chart = filledByMinute({ from: "2026-02-10T00:00:30Z", to: "2026-02-10T00:03:30Z", series: [bucket] });
  expect(chart.times.map((time) => formatTime(time, "minute").slice(11))).toEqual(["00:00", "00:01", "00:02", "00:03"]);
  expect(chart.series.map(({ values }) => values)).toEqual([
    [0, 0, 5, 0],
    [0, 0, 1, 0],
  ]);
});

test("a bucket outside of the window is left out", () => {
  const series = ["2026-02-09T23:59:00Z", "2026-02-10T00:09:00Z"].map((ts) => ({ ts, impressions: 1, clicks: 1 }));
  const chart = filledByMinute({ from: "2026-02-10T00:00:00Z", to: "2026-02-10T00:01:00Z", series });
  expect(chart.series[0]?.values).toEqual([0]);
});

const column = (name: string, type: string) => ({ name, type });

test("a result with a time and numbers can be drawn, in order of time", () => {
  const columns = [column("day", "Date"), column("type", "String"), column("events", "UInt64")];
  const chart = chartableOf({
    columns,
    rows: [
      ["2026-02-11", "a", 2],
      ["2026-02-10", "b", "1"],
    ],
  });
  expect(chart).toMatchObject({ unit: "day", series: [{ name: "events", values: [1, 2] }] });
  expect(chart?.times).toEqual([1770681600, 1770768000]);
  const minutes = chartableOf({
    columns: [column("minute", "DateTime('UTC')"), column("n", "Float64")],
    rows: [["2026-02-10 00:01:00", 0.5]],
  });
  expect(minutes).toMatchObject({ unit: "minute", times: [1770681660], series: [{ values: [0.5] }] });
});

test("a result without times, without numbers, or with a time twice cannot", () => {
  expect(chartableOf({ columns: [column("n", "UInt8")], rows: [[1]] })).toBeUndefined();
  expect(chartableOf({ columns: [column("day", "Date")], rows: [["2026-02-10"]] })).toBeUndefined();
  const columns = [column("day", "Date"), column("n", "Nullable(Int64)")];
  expect(
    chartableOf({
      columns,
      rows: [
        ["2026-02-10", 1],
        ["2026-02-10", 2],
      ],
    }),
  ).toBeUndefined();
  expect(chartableOf({ columns, rows: [] })).toBeUndefined();
});

test("days and ages are written for people", () => {
  const now = Date.parse("2026-03-01T12:00:00Z");
  expect(lastDays(1, now)).toEqual({ startDate: "2026-03-01", endDate: "2026-03-01" });
  expect(lastDays(7, now)).toEqual({ startDate: "2026-02-23", endDate: "2026-03-01" });
  expect([-5, 400, 30_000, 600_000, 10_800_000].map(formatAge)).toEqual(["0.0 s", "0.4 s", "30 s", "10 min", "3 h"]);
});
