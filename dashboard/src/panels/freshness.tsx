"use client";

import type { Freshness as FreshnessOf } from "@tallyhouse/analytics-sdk";
import { type ReactNode, useEffect, useState } from "react";
import { formatAge, formatClock } from "../format";

/** Up to when everything is counted, and how long ago that is. */
export function Freshness({ freshness }: { freshness: FreshnessOf | undefined }): ReactNode {
  const now = useNow(1_000);
  const watermark = freshness?.watermark;
  if (watermark === undefined || watermark === null) return null;
  return (
    <p className="freshness">
      Watermark <time dateTime={watermark}>{formatClock(watermark)}</time>: everything acknowledged until then is
      counted ({formatAge(now - Date.parse(watermark))} ago{freshness?.isCached ? ", from the cache" : ""}).
    </p>
  );
}

/** The time, again every so many milliseconds. */
function useNow(everyMs: number): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}
