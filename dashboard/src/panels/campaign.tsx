"use client";

import { useQuestion } from "@tallyhouse/analytics-react";
import type { CampaignStats } from "@tallyhouse/analytics-sdk";
import { type ReactNode, useId, useMemo, useState } from "react";
import { filledByMinute } from "../chart/minutes";
import { TimeChart } from "../chart/time-chart";
import { Answer, Choice, Panel } from "./panel";

const REFRESH_MS = 10_000;
const CAMPAIGNS_MAX = 100;
const HOUR_MS = 3_600_000;

const RANGES = [
  { value: "1", title: "Last hour" },
  { value: "6", title: "Last 6 hours" },
  { value: "24", title: "Last 24 hours" },
] as const;

/** Impressions and clicks of one campaign, minute by minute. */
export function Campaign(): ReactNode {
  const list = useId();
  const field = useId();
  const [hours, setHours] = useState<(typeof RANGES)[number]["value"]>("6");
  const [typed, setTyped] = useState("");
  const known = useQuestion(
    ["campaigns"],
    (client, signal) => client.getTopCampaigns({ window: "24h", limit: CAMPAIGNS_MAX, signal }),
    { refetchIntervalMs: REFRESH_MS },
  );
  const campaignId = typed.trim() || (known.data?.campaigns[0]?.campaignId ?? "");
  const stats = useQuestion(
    ["campaign", campaignId, hours],
    (client, signal) => {
      const to = Date.now();
      const from = new Date(to - Number(hours) * HOUR_MS);
      return client.getStats({ campaignId, from, to: new Date(to), granularity: "minute", signal });
    },
    { enabled: campaignId !== "", refetchIntervalMs: REFRESH_MS },
  );
  const controls = (
    <>
      <span className="field">
        <label htmlFor={field}>Campaign</label>
        <input
          id={field}
          list={list}
          placeholder={known.data?.campaigns[0]?.campaignId ?? "none yet"}
          value={typed}
          onChange={(event) => setTyped(event.target.value)}
        />
        <datalist id={list}>
          {known.data?.campaigns.map(({ campaignId }) => (
            <option key={campaignId} value={campaignId} />
          ))}
        </datalist>
      </span>
      <Choice label="Range" value={hours} options={RANGES} onChange={setHours} />
    </>
  );
  return (
    <Panel title="Campaign by minute" controls={controls}>
      {campaignId === "" ? (
        <Answer answer={known}>
          {() => (
            <p className="empty">
              No event of the last 24 hours names a campaign. Send impressions or clicks with one.
            </p>
          )}
        </Answer>
      ) : (
        <Answer
          answer={stats}
          isEmpty={({ series }) => series.length === 0}
          empty={<p>{campaignId} has no impressions and clicks in this range.</p>}
        >
          {(data) => <Chart stats={data} />}
        </Answer>
      )}
    </Panel>
  );
}

function Chart({ stats }: { stats: CampaignStats }): ReactNode {
  const chart = useMemo(() => filledByMinute(stats), [stats]);
  return (
    <TimeChart
      label={`Impressions and clicks of ${stats.campaignId} by minute`}
      unit="minute"
      kind="lines"
      {...chart}
    />
  );
}
