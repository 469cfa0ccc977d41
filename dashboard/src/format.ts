/** What lies between two times of a series. */
export type TimeUnit = "minute" | "day";

/** A number for people: at most two decimals. */
export function formatNumber(value: number): string {
  return value.toLocaleString("en", { maximumFractionDigits: 2 });
}

/** A ratio in percent. */
export function formatPercent(ratio: number): string {
  return ratio.toLocaleString("en", { style: "percent", maximumFractionDigits: 2 });
}

/** A time in UTC, in seconds since 1970, as exactly as the unit says. */
export function formatTime(seconds: number, unit: TimeUnit): string {
  const text = new Date(seconds * 1_000).toISOString();
  return unit === "day" ? text.slice(0, 10) : text.slice(0, 16).replace("T", " ");
}

/** The time of day of an RFC 3339 time, in UTC. */
export function formatClock(time: string): string {
  return `${new Date(time).toISOString().slice(11, 19)} UTC`;
}

/** How long ago something was, in the largest unit that fits. */
export function formatAge(ms: number): string {
  const seconds = Math.max(0, ms / 1_000);
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3_600)} h`;
}

const DAY_MS = 86_400_000;

/** The last so many days, today included, as the API names them. */
export function lastDays(days: number, now: number): { startDate: string; endDate: string } {
  const day = (ms: number) => new Date(ms).toISOString().slice(0, 10);
  return { startDate: day(now - (days - 1) * DAY_MS), endDate: day(now) };
}

/** The seconds since 1970 of a day or time. */
export function secondsOf(time: string): number {
  return Date.parse(time) / 1_000;
}
