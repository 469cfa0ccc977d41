"use client";

import { useMetrics } from "@tallyhouse/analytics-react";
import Link from "next/link";
import { type ReactNode, useMemo, useState } from "react";
import { lastDays } from "../format";
import { ActiveUsers } from "./active-users";
import { Campaign } from "./campaign";
import { Events } from "./events";
import { Freshness } from "./freshness";
import { HealthPanel } from "./health";
import { LiveTail } from "./live-tail";
import { Choice } from "./panel";
import { Summary } from "./summary";
import { TopCampaigns, TopUsers } from "./top";

/** How often counts are asked for, in milliseconds. */
const REFRESH_MS = 5_000;

const RANGES = [
  { value: "1", title: "Today" },
  { value: "7", title: "7 days" },
  { value: "30", title: "30 days" },
  { value: "90", title: "90 days" },
] as const;

/** What was counted, and what is arriving now. */
export function Overview(): ReactNode {
  const [range, setRange] = useState<(typeof RANGES)[number]["value"]>("7");
  // The page may be open for days: each answer draws it again.
  const { endDate: today } = lastDays(1, Date.now());
  const days = useMemo(() => lastDays(Number(range), Date.parse(today)), [range, today]);
  const metrics = useMetrics(days, { refetchIntervalMs: REFRESH_MS });
  const isEmpty = metrics.data?.metrics.find(({ name }) => name === "events")?.total === 0;
  return (
    <>
      <div className="toolbar">
        <Choice label="Range" value={range} options={RANGES} onChange={setRange} />
        <Freshness freshness={metrics.data?.freshness} />
      </div>
      {isEmpty && <FirstSteps />}
      <Summary metrics={metrics} />
      <div className="columns">
        <ActiveUsers days={days} />
        <HealthPanel />
        <TopUsers />
        <TopCampaigns />
      </div>
      <Campaign />
      <LiveTail />
      <Events />
    </>
  );
}

function FirstSteps(): ReactNode {
  return (
    <div className="notice">
      <p>
        <strong>There are no events in this range.</strong> Run <code>make demo</code> where the service was started to
        fill it with a day of sample events, or send your own with one of the{" "}
        <Link href="/snippets/" prefetch={false}>
          snippets
        </Link>
        . They appear here within seconds.
      </p>
    </div>
  );
}
