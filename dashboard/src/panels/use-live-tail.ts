"use client";

import { createGrpcClients, type Outcome, Verdict } from "@tallyhouse/analytics-sdk/grpc";
import { useEffect, useState } from "react";

/** Outcomes that are shown; older ones go. */
const SHOWN_MAX = 100;
/** Outcomes are shown together, so often, in milliseconds. */
const PAINT_MS = 200;
/** Pause before an interrupted tail is followed again, in milliseconds. */
const RETRY_MS = 2_000;

const NAMES = {
  accepted: Verdict.ACCEPTED,
  duplicate: Verdict.DUPLICATE,
  conflict: Verdict.CONFLICT,
  rejected: Verdict.REJECTED,
} as const;

/** A verdict, as people call it. */
export type VerdictName = keyof typeof NAMES;

/** All verdicts. */
export const VERDICTS = Object.keys(NAMES) as VerdictName[];

/** One outcome as it is shown. */
export interface ShownOutcome {
  key: number;
  time: string;
  verdict: string;
  type: string;
  campaignId: string;
  eventId: string;
  why: string;
}

/** What was seen of the tail since it was first followed. */
export interface Tail {
  state: "connecting" | "live";
  /** Why it was interrupted last, until it goes on. */
  error: string | undefined;
  /** Newest first. */
  outcomes: ShownOutcome[];
  seen: number;
  /** How many the service left out, because this page was too slow. */
  missed: number;
}

const EMPTY: Tail = { state: "connecting", error: undefined, outcomes: [], seen: 0, missed: 0 };

function shown(outcome: Outcome, key: number): ShownOutcome {
  const { at, verdict, type, campaignId, eventId, errors } = outcome;
  const ms = at ? Number(at.seconds) * 1_000 + at.nanos / 1_000_000 : Date.now();
  const name = VERDICTS.find((name) => NAMES[name] === verdict) ?? "unknown";
  const why = errors.map(({ field, message }) => `${field} ${message}`).join("; ");
  return { key, time: new Date(ms).toISOString().slice(11, 23), verdict: name, type, campaignId, eventId, why };
}

/** Follows the verdicts over grpc-web while `isFollowing`; all, or one kind. */
export function useLiveTail(isFollowing: boolean, verdict: VerdictName | undefined, token: string | undefined): Tail {
  const [tail, setTail] = useState<Tail>(EMPTY);

  useEffect(() => {
    if (!isFollowing) return;
    const controller = new AbortController();
    const { outcomes } = createGrpcClients({ baseUrl: window.location.origin, apiKey: token });
    let waiting: Outcome[] = [];
    let missed = 0;
    const paint = () => {
      if (waiting.length === 0 && missed === 0) return;
      const [taken, gap] = [waiting, missed];
      [waiting, missed] = [[], 0];
      setTail((tail) => {
        const fresh = taken.map((outcome, n) => shown(outcome, tail.seen + n)).reverse();
        const outcomes = [...fresh, ...tail.outcomes].slice(0, SHOWN_MAX);
        return { ...tail, outcomes, seen: tail.seen + taken.length, missed: tail.missed + gap };
      });
    };
    const timer = setInterval(paint, PAINT_MS);
    const follow = async () => {
      const verdicts = verdict === undefined ? [] : [NAMES[verdict]];
      const options = {
        signal: controller.signal,
        onHeader: () => setTail((tail) => ({ ...tail, state: "live" as const, error: undefined })),
      };
      for await (const { report } of outcomes.watch({ verdicts }, options)) {
        if (report.case === "outcome") waiting.push(report.value);
        if (report.case === "missed") missed += Number(report.value);
      }
    };
    const keepFollowing = async () => {
      while (!controller.signal.aborted) {
        const reason = await follow().then(
          () => "the service ended it",
          (error) => (error instanceof Error ? error.message : String(error)),
        );
        if (controller.signal.aborted) return;
        setTail((tail) => ({ ...tail, state: "connecting", error: reason }));
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    };
    setTail((tail) => ({ ...tail, state: "connecting", error: undefined }));
    void keepFollowing();
    return () => {
      controller.abort();
      clearInterval(timer);
      paint();
    };
  }, [isFollowing, verdict, token]);

  return tail;
}
