/**
 * What to do about a batch that was not taken whole: events that were rejected, answers that are no answers, batches
 * that cannot be read. Most pages never need this, so it is loaded when it is needed.
 */
import type { ServiceClock } from "../clock.js";
import type { AnalyticsError } from "../error.js";
import { byteLength, readEvent, retime, type TrackedEvent } from "../event.js";
import { type Batch, partId } from "../queue/record.js";
import type { EventFault } from "../settings.js";
import { uuid7 } from "../uuid.js";
import type { Fault, Judgement } from "./answer.js";

/** The pause before events are sent again of which the service could not tell whether they are new, in milliseconds. */
const UNDECIDED_PAUSE_MS = 5_000;

/** What to do about a batch. */
export interface Resolution {
  /** What takes its place in the queue. */
  replacement: Batch[];
  /** What the page is told of its events; undefined: nothing is known of them. */
  report?: Judged;
  /** Events that are given up. */
  dropped?: string[];
  /** Whether the page is told of the error. */
  isError?: boolean;
  /** How long to wait before the next call: as after any failure, or as long as possible. */
  pause?: "backoff" | "longest" | { ms: number };
}

/** The verdicts on those events of a batch that are not sent again. */
export interface Judged {
  events: TrackedEvent[];
  accepted: number;
  duplicates: number;
  faults: EventFault[];
  isReplayed: boolean;
}

/** What a resolution depends on. */
export interface ResolutionContext {
  clock: ServiceClock;
  correctClock: boolean;
  badAnswersMax: number;
}

/** What to do about an answer that names faults, or an error. */
export function resolve(batch: Batch, outcome: Judgement | AnalyticsError, context: ResolutionContext): Resolution {
  if (!(outcome instanceof Error)) return resolveFaults(batch, outcome, context);
  const judgement = readAllRejected(outcome, batch.events.length);
  if (judgement !== undefined) return resolveFaults(batch, judgement, context);
  const refusal = refusalOf(outcome);
  if (refusal === "hold") return { replacement: [batch], isError: true, pause: "longest" };
  if (refusal === "rekey") return { replacement: [rekeyed(batch, batch.events)], isError: true, pause: "backoff" };
  if (refusal === "split") return { ...split(batch, outcome), isError: true };
  const badAnswers = batch.badAnswers + 1;
  const isOver = badAnswers >= context.badAnswersMax;
  const resolution = isOver ? split(batch, outcome) : { replacement: [{ ...batch, badAnswers }] };
  return { ...resolution, isError: true, pause: "backoff" };
}

/** Takes what was judged out of a batch, and leaves in it what must be sent again. */
function resolveFaults(batch: Batch, judgement: Judgement, context: ResolutionContext): Resolution {
  const again = new Map<number, string>();
  for (const fault of judgement.faults) {
    const event = toSendAgain(batch.events[fault.index] as string, fault, context);
    if (event !== undefined) again.set(fault.index, event);
  }
  const isUndecided = judgement.faults.some(({ code }) => code === "UNDECIDED");
  return {
    replacement: again.size > 0 ? [rekeyed(batch, [...again.values()])] : [],
    report: judged(batch, judgement, again),
    ...(isUndecided ? { pause: { ms: UNDECIDED_PAUSE_MS } } : {}),
  };
}

/** The event as it is sent again; undefined when its fault is final. */
function toSendAgain(event: string, { code, field }: Fault, context: ResolutionContext): string | undefined {
  const { clock, correctClock } = context;
  if (code === "UNDECIDED") return event;
  // Never stored under its first time, an event may be given another.
  return field === "timestamp" && correctClock ? retime(event, clock.offsetMs, clock.now()) : undefined;
}

function judged(batch: Batch, judgement: Judgement, again: Map<number, string>): Judged {
  const events = batch.events.map(readEvent);
  const faults = judgement.faults
    .filter(({ index }) => !again.has(index))
    .map(({ index, code, message, field }) => ({ event: events[index] as TrackedEvent, code, message, field }));
  return { ...judgement, events: events.filter((_, index) => !again.has(index)), faults };
}

function rekeyed(batch: Batch, events: string[]): Batch {
  return { ...batch, key: uuid7(Date.now()), events, bytes: byteLength(events.join("")) };
}

/** Narrows down which event makes a batch unreadable. The last one left is given up. */
function split(batch: Batch, error: AnalyticsError): Resolution {
  const { events } = batch;
  const middle = events.length >> 1;
  if (middle > 0) {
    const second = { ...batch, id: partId(batch.id, middle) };
    const parts = [rekeyed(batch, events.slice(0, middle)), rekeyed(second, events.slice(middle))];
    return { replacement: parts.map((part) => ({ ...part, badAnswers: 0 })) };
  }
  if (error.code === "BAD_RESPONSE" || error.status >= 500) return { replacement: [], dropped: events };
  const faults = [{ index: 0, code: error.code, message: error.message, field: error.details[0]?.field ?? "" }];
  const judgement = { accepted: 0, duplicates: 0, faults, isReplayed: false };
  return { replacement: [], report: judged(batch, judgement, new Map()) };
}

type Refusal =
  /** Nothing is wrong with it, but somebody must change something first. */
  | "hold"
  /** Not understood: send it again later, but not for ever. */
  | "retry-bounded"
  /** Something in it makes the whole of it unreadable: send parts of it. */
  | "split"
  /** Its key was used for other events: send it under another. */
  | "rekey";

/** The judgement in a refusal that names a fault of every event, as the service answers when it takes none of them. */
function readAllRejected(error: AnalyticsError, events: number): Judgement | undefined {
  if (error.status !== 422) return undefined;
  const faults = new Map<number, Fault>();
  for (const detail of error.details) {
    const [, place, field] = /^events\[(\d+)\]\.?(.*)$/.exec(detail.field) ?? [];
    const index = Number(place ?? events);
    if (index >= events) return undefined;
    const isFirst = !faults.has(index);
    const code = detail.code ?? "INVALID";
    if (isFirst) faults.set(index, { index, code, field: field ?? "", message: detail.message });
  }
  if (faults.size !== events) return undefined;
  return { accepted: 0, duplicates: 0, faults: [...faults.values()], isReplayed: false };
}

const HELD = new Set([401, 403, 404, 405, 415]);

/** What to do about an error. */
function refusalOf(error: AnalyticsError): Refusal {
  if (error.code === "IDEMPOTENCY_KEY_REUSED") return "rekey";
  if (error.code === "BAD_RESPONSE" || error.status >= 500) return "retry-bounded";
  return HELD.has(error.status) ? "hold" : "split";
}
