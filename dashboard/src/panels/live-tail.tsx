"use client";

import { type ReactNode, useState } from "react";
import { useSession } from "../session/session";
import { Choice, Panel } from "./panel";
import { useLiveTail, VERDICTS, type VerdictName } from "./use-live-tail";

const FILTERS = [{ value: "all" as const, title: "all" }, ...VERDICTS.map((value) => ({ value, title: value }))];

/** Verdicts as they are made. */
export function LiveTail(): ReactNode {
  const { state } = useSession();
  const token = state.status === "ready" ? state.token : undefined;
  const [isFollowing, setIsFollowing] = useState(false);
  const [verdict, setVerdict] = useState<VerdictName | "all">("all");
  const tail = useLiveTail(isFollowing, verdict === "all" ? undefined : verdict, token);
  const controls = (
    <>
      <Choice label="Verdict" value={verdict} options={FILTERS} onChange={setVerdict} />
      <button type="button" aria-pressed={isFollowing} onClick={() => setIsFollowing(!isFollowing)}>
        {isFollowing ? "Pause" : "Follow"}
      </button>
    </>
  );
  return (
    <Panel title="Live tail" controls={controls}>
      <p role="status" className="hint">
        {statusText(isFollowing, tail)}
      </p>
      {tail.outcomes.length > 0 && (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
        <section className="scrolled tail" tabIndex={0} aria-label="Verdicts, newest first">
          <table>
            <thead>
              <tr>
                <th scope="col">Time (UTC)</th>
                <th scope="col">Verdict</th>
                <th scope="col">Type</th>
                <th scope="col">Campaign</th>
                <th scope="col">Event</th>
                <th scope="col">Why</th>
              </tr>
            </thead>
            <tbody>
              {tail.outcomes.map(({ key, time, verdict, type, campaignId, eventId, why }) => (
                <tr key={key}>
                  <td>{time}</td>
                  <td>
                    <span
                      className={`pill ${verdict === "accepted" ? "good" : verdict === "rejected" ? "bad" : "warn"}`}
                    >
                      {verdict}
                    </span>
                  </td>
                  <td>{type}</td>
                  <td>{campaignId}</td>
                  <td>{eventId}</td>
                  <td>{why}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      )}
    </Panel>
  );
}

function statusText(isFollowing: boolean, { state, error, missed, seen }: ReturnType<typeof useLiveTail>): string {
  if (!isFollowing) return seen > 0 ? "Paused." : "Follow to see each event's verdict as it is made.";
  if (error !== undefined) return `The tail was interrupted (${error}); trying again.`;
  if (state === "connecting") return "Connecting…";
  const gap = missed > 0 ? ` ${missed} were too fast to be shown.` : "";
  return seen === 0 ? "Waiting for events: send one, and it appears here." : `Following: ${seen} so far.${gap}`;
}
