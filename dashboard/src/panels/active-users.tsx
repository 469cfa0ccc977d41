"use client";

import { useQuestion } from "@tallyhouse/analytics-react";
import type { DailyActiveUsers } from "@tallyhouse/analytics-sdk";
import { type ReactNode, useMemo } from "react";
import { TimeChart } from "../chart/time-chart";
import { secondsOf } from "../format";
import { Answer, Panel } from "./panel";

const REFRESH_MS = 30_000;

/** How many different users had events on each day. */
export function ActiveUsers({ days }: { days: { startDate: string; endDate: string } }): ReactNode {
  const answer = useQuestion(["dau", days], (client, signal) => client.getDailyActiveUsers({ ...days, signal }), {
    refetchIntervalMs: REFRESH_MS,
  });
  return (
    <Panel title="Daily active users">
      <Answer
        answer={answer}
        isEmpty={({ daily }) => daily.every(({ value }) => value === 0)}
        empty={<p>No event of this range names a user. Send events with a user id to count users.</p>}
      >
        {(data) => <Chart data={data} />}
      </Answer>
    </Panel>
  );
}

function Chart({ data }: { data: DailyActiveUsers }): ReactNode {
  const chart = useMemo(() => {
    const values = data.daily.map(({ value }) => value);
    return { times: data.daily.map(({ date }) => secondsOf(date)), series: [{ name: "Users", values }] };
  }, [data]);
  return <TimeChart label="Daily active users" unit="day" kind="bars" {...chart} />;
}
