"use client";

import { useQuestion } from "@tallyhouse/analytics-react";
import type { AnalyticsError, Readiness } from "@tallyhouse/analytics-sdk";
import type { UseQueryResult } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { formatNumber } from "../format";
import { ClientProvider } from "../session/session";
import { Answer, Panel } from "./panel";

/** What each status means: its color and its text. */
const STATUSES: Record<string, { color: string; meaning: string }> = {
  ready: { color: "good", meaning: "Events are taken and counted." },
  degraded: { color: "warn", meaning: "Events are taken; something needs attention." },
  refusing: { color: "bad", meaning: "Every event is refused." },
};
/** For a status of a newer service. */
const OTHER_STATUS = { color: "warn", meaning: "Something needs attention." };
/** How often health is asked for, in milliseconds. */
const REFRESH_MS = 5_000;

/** How the service is. It needs no token. */
export function Health(): ReactNode {
  return (
    <ClientProvider token={undefined}>
      <HealthPanel />
    </ClientProvider>
  );
}

/** How the service is, with the client of the provider above. */
export function HealthPanel(): ReactNode {
  const readiness = useQuestion(["readiness"], (client, signal) => client.getReadiness({ signal }), {
    refetchIntervalMs: REFRESH_MS,
  });
  return (
    <Panel title="Ingest health">
      <HealthState answer={readiness} />
    </Panel>
  );
}

export interface HealthStateProps {
  answer: UseQueryResult<Readiness, AnalyticsError>;
}

/** How the service is by its last answer; nothing of it once the service has stopped answering. */
export function HealthState({ answer }: HealthStateProps): ReactNode {
  return (
    <Answer answer={answer} hidesOlder>
      {(data) => <Facts readiness={data} />}
    </Answer>
  );
}

function Facts({ readiness }: { readiness: Readiness }): ReactNode {
  const { status, reasons, clickhouse, segments, audit } = readiness;
  const { color, meaning } = STATUSES[status] ?? OTHER_STATUS;
  return (
    <>
      <p>
        <span className={`pill ${color}`}>{status}</span> {meaning}
      </p>
      {reasons.length > 0 && (
        <ul className="reasons">
          {reasons.map(({ code, message }) => (
            <li key={code}>
              <code>{code}</code> {message}
            </li>
          ))}
        </ul>
      )}
      <dl className="facts">
        <Fact name="ClickHouse" value={clickhouse} />
        <Fact name="Rows not in ClickHouse yet" value={formatNumber(segments.rows)} />
        <Fact name="Segments waiting" value={formatNumber(segments.waiting)} />
        <Fact name="Segments refused" value={formatNumber(segments.parked)} />
        <Fact name="Hours audited" value={formatNumber(audit.hours)} />
        <Fact name="Hours that differ" value={formatNumber(audit.different)} />
      </dl>
    </>
  );
}

function Fact({ name, value }: { name: string; value: string }): ReactNode {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}
