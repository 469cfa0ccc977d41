import type { SqlResult } from "@tallyhouse/analytics-sdk/sql";
import type { ChartSeries } from "../chart/time-chart";
import type { TimeUnit } from "../format";

/** Most series of a chart: further numbers are in the table. */
const SERIES_MAX = 4;

/** A result over time. */
export interface Chartable {
  times: number[];
  series: ChartSeries[];
  unit: TimeUnit;
}

const isTime = (type: string): boolean => /^(?:LowCardinality\(|Nullable\()?Date/.test(type);
const isNumber = (type: string): boolean => /^(?:Nullable\()?(?:U?Int(?:8|16|32|64)|Float|Decimal)/.test(type);

/** A result with one time and at least one number in each row, each time once; else undefined. */
export function chartableOf({ columns, rows }: SqlResult): Chartable | undefined {
  const time = columns.findIndex(({ type }) => isTime(type));
  const numbers = columns.flatMap(({ name, type }, n) => (isNumber(type) ? [{ name, n }] : [])).slice(0, SERIES_MAX);
  if (time < 0 || numbers.length === 0 || rows.length === 0) return undefined;
  const sorted = rows
    .map((row) => ({
      at: Date.parse(`${String(row[time]).replace(" ", "T")}${String(row[time]).length > 10 ? "Z" : ""}`) / 1_000,
      row,
    }))
    .sort((a, b) => a.at - b.at);
  const times = sorted.map(({ at }) => at);
  if (times.some((at) => !Number.isFinite(at)) || new Set(times).size !== times.length) return undefined;
  const isDay = /Date(?!Time)/.test(columns[time]?.type ?? "");
  const series = numbers.map(({ name, n }) => ({ name, values: sorted.map(({ row }) => Number(row[n] ?? 0)) }));
  return { times, series, unit: isDay ? "day" : "minute" };
}
