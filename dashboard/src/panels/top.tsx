"use client";

import { useQuestion } from "@tallyhouse/analytics-react";
import { type ReactNode, useState } from "react";
import { formatNumber } from "../format";
import { Answer, Choice, Panel } from "./panel";

const REFRESH_MS = 15_000;
const SHOWN_MAX = 10;

const WINDOWS = [
  { value: "1h", title: "Last hour" },
  { value: "24h", title: "Last 24 hours" },
  { value: "7d", title: "Last 7 days" },
] as const;

type Window = (typeof WINDOWS)[number]["value"];

/** The users with the most events. */
export function TopUsers(): ReactNode {
  const [window, setWindow] = useState<Window>("24h");
  const answer = useQuestion(
    ["top users", window],
    (client, signal) => client.getTopUsers({ window, limit: SHOWN_MAX, signal }),
    { refetchIntervalMs: REFRESH_MS },
  );
  const controls = <Choice label="Window" value={window} options={WINDOWS} onChange={setWindow} />;
  return (
    <Panel title="Top users" controls={controls}>
      <Answer
        answer={answer}
        isEmpty={({ users }) => users.length === 0}
        empty={<p>No event of this window names a user.</p>}
      >
        {({ users }) => <Ranking kind="User" rows={users.map(({ userId, events }) => ({ id: userId, events }))} />}
      </Answer>
    </Panel>
  );
}

/** The campaigns with the most events. */
export function TopCampaigns(): ReactNode {
  const [window, setWindow] = useState<Window>("24h");
  const answer = useQuestion(
    ["top campaigns", window],
    (client, signal) => client.getTopCampaigns({ window, limit: SHOWN_MAX, signal }),
    { refetchIntervalMs: REFRESH_MS },
  );
  const controls = <Choice label="Window" value={window} options={WINDOWS} onChange={setWindow} />;
  return (
    <Panel title="Top campaigns" controls={controls}>
      <Answer
        answer={answer}
        isEmpty={({ campaigns }) => campaigns.length === 0}
        empty={<p>No event of this window names a campaign.</p>}
      >
        {({ campaigns }) => (
          <Ranking kind="Campaign" rows={campaigns.map(({ campaignId, events }) => ({ id: campaignId, events }))} />
        )}
      </Answer>
    </Panel>
  );
}

interface RankingProps {
  /** What is ranked. */
  kind: string;
  rows: { id: string; events: number }[];
}

function Ranking({ kind, rows }: RankingProps): ReactNode {
  const most = Math.max(1, ...rows.map(({ events }) => events));
  return (
    <table className="ranking">
      <thead>
        <tr>
          <th scope="col">{kind}</th>
          <th scope="col" className="number">
            Events
          </th>
        </tr>
      </thead>
      <tbody>
        {rows.map(({ id, events }) => (
          <tr key={id}>
            <th scope="row">
              <span className="share" style={{ width: `${(100 * events) / most}%` }} />
              <span className="name">{id}</span>
            </th>
            <td className="number">{formatNumber(events)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
