"use client";

import { useQuestion } from "@tallyhouse/analytics-react";
import type { Readiness } from "@tallyhouse/analytics-sdk";
import type { ReactNode } from "react";
import { formatNumber } from "../format";
import { ClientProvider } from "../session/session";
import { Answer, Panel } from "./panel";

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
      <Answer answer={readiness}>{(data) => <Facts readiness={data} />}</Answer>
    </Panel>
  );
}

function Facts({ readiness }: { readiness: Readiness }): ReactNode {
  const { status, reasons, clickhouse, segments, audit } = readiness;
  return (
    <>
      <p>
        <span className={`pill ${status === "ready" ? "good" : "warn"}`}>{status}</span>{" "}
        {status === "ready" ? "Events are taken and counted." : "Events are taken; something needs attention."}
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
