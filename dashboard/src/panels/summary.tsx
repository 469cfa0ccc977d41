"use client";

import type { AnalyticsError, MetricSeries, MetricsSummary } from "@tallyhouse/analytics-sdk";
import type { UseQueryResult } from "@tanstack/react-query";
import { type ReactNode, useMemo, useState } from "react";
import { TimeChart } from "../chart/time-chart";
import { formatNumber, formatPercent, secondsOf } from "../format";
import { Answer, Choice, Panel } from "./panel";

const TITLES: Record<string, string> = {
  events: "Events",
  active_users: "Active users",
  impressions: "Impressions",
  clicks: "Clicks",
  ctr: "Click-through rate",
};

const titleOf = (name: string): string => TITLES[name] ?? name;

/** The totals of the range as cards, and one of them by day. */
export function Summary({ metrics }: { metrics: UseQueryResult<MetricsSummary, AnalyticsError> }): ReactNode {
  const [chosen, setChosen] = useState("events");
  const options = (metrics.data?.metrics ?? []).map(({ name }) => ({ value: name, title: titleOf(name) }));
  return (
    <>
      <section aria-label="Totals">
        <Answer answer={metrics}>
          {(data) => (
            <dl className="cards">
              {data.metrics.map(({ name, total }) => (
                <div key={name}>
                  <dt>{titleOf(name)}</dt>
                  <dd>{name === "ctr" ? formatPercent(total) : formatNumber(total)}</dd>
                </div>
              ))}
            </dl>
          )}
        </Answer>
      </section>
      {metrics.data !== undefined && (
        <Panel
          title="By day"
          controls={<Choice label="Metric" value={chosen} options={options} onChange={setChosen} />}
        >
          <Daily series={metrics.data.metrics.find(({ name }) => name === chosen)} />
        </Panel>
      )}
    </>
  );
}

function Daily({ series }: { series: MetricSeries | undefined }): ReactNode {
  const chart = useMemo(() => {
    const daily = series?.daily ?? [];
    const values = daily.map(({ value }) => value);
    return {
      times: daily.map(({ date }) => secondsOf(date)),
      series: [{ name: titleOf(series?.name ?? ""), values }],
    };
  }, [series]);
  return <TimeChart label={`${chart.series[0]?.name} by day`} unit="day" kind="bars" {...chart} />;
}
