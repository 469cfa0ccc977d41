import type { CampaignStats } from "@tallyhouse/analytics-sdk";
import { secondsOf } from "../format";
import type { ChartSeries } from "./time-chart";

const MINUTE_S = 60;

/** Impressions and clicks of every minute of the window: the service leaves out minutes without any. */
export function filledByMinute(stats: Pick<CampaignStats, "from" | "to" | "series">): {
  times: number[];
  series: ChartSeries[];
} {
  const first = Math.floor(secondsOf(stats.from) / MINUTE_S) * MINUTE_S;
  const count = Math.max(0, Math.ceil((secondsOf(stats.to) - first) / MINUTE_S));
  const times = Array.from({ length: count }, (_, n) => first + n * MINUTE_S);
  const impressions: number[] = new Array(count).fill(0);
  const clicks: number[] = new Array(count).fill(0);
  for (const bucket of stats.series) {
    const n = (secondsOf(bucket.ts) - first) / MINUTE_S;
    if (!Number.isInteger(n) || n < 0 || n >= count) continue;
    impressions[n] = bucket.impressions;
    clicks[n] = bucket.clicks;
  }
  return {
    times,
    series: [
      { name: "Impressions", values: impressions },
      { name: "Clicks", values: clicks },
    ],
  };
}
