import type { AnalyticsError } from "./error.js";
import type { TrackedEvent } from "./event.js";
import type { QueueBounds } from "./queue/queue.js";
import type { ApiKey } from "./token.js";

/** Whether events may be collected. */
export type Consent = "granted" | "pending" | "denied";

/** An event that was not accepted, and why. */
export interface EventFault {
  event: TrackedEvent;
  /** `INVALID`, `SCHEMA`, `UNKNOWN_TYPE`, `TOO_OLD`, `IN_FUTURE`, `CONFLICT`, or the code of the whole call's error. */
  code: string;
  /** What is wrong and what is allowed. */
  message: string;
  /** The invalid field; empty for the event as a whole. */
  field: string;
}

/** The verdicts on one batch. */
export interface VerdictReport {
  /** The batch's idempotency key. */
  idempotencyKey: string;
  /** The events of the batch, in order. */
  events: TrackedEvent[];
  /** How many events were new. They are durable and counted. */
  accepted: number;
  /** How many events were already stored with the same payload. They were not counted again. */
  duplicates: number;
  /** Events whose id is already stored with another payload, which stays. */
  conflicts: EventFault[];
  /** Invalid events. They are not sent again. */
  rejected: EventFault[];
  /** Whether this is the service's stored answer to an earlier attempt, which this client did not receive. */
  isReplayed: boolean;
}

/** Why events were dropped without being sent. */
export type DropReason =
  /** The queue was full. */
  | "queue-full"
  /** Consent was denied. */
  | "consent"
  /** The event is invalid, or larger than `eventBytesMax`. */
  | "invalid"
  /** The client was shut down. */
  | "shut-down"
  /** Its answers could not be parsed `badAnswersMax` times. */
  | "undeliverable";

/** Events that were dropped without being sent. */
export interface DropReport {
  reason: DropReason;
  /** The events as far as they could be read. */
  events: Partial<TrackedEvent>[];
}

/**
 * Hands a batch over when the page is being closed, such as by `navigator.sendBeacon`; answers whether it was taken
 * over. What it hands over is not confirmed: it stays in the queue and is sent again, under the same ids, when the next
 * page is opened.
 */
export type CloseTransport = (body: string, idempotencyKey: string) => boolean;

/**
 * Settings of an {@link EventTracker}. All but `baseUrl` have defaults, which also take the place of null and of
 * numbers that are negative or not a number.
 */
export interface TrackerOptions {
  /** The service's URL, such as `https://analytics.example`. Empty: the page's own origin. */
  baseUrl: string;
  /** A token with the scope `ingest` (and `read` for queries), or a function that returns one. Default: none. */
  apiKey?: ApiKey | undefined;
  /** The organization, if the token does not name it. It separates the queues of different organizations. */
  orgId?: string | undefined;
  /** Number of waiting single events that are sent at once. Default 20. */
  flushAtEvents?: number;
  /** Longest time that a single event waits for others, in milliseconds. Default 2,000. */
  flushAfterMs?: number;
  /** Most events of one call. Default and most 100. */
  batchEventsMax?: number;
  /** Most bytes of one call's events. Default 30,000, so that two calls fit into the 64 KiB of a closing page. */
  batchBytesMax?: number;
  /** Largest event, in bytes of JSON. Larger ones are dropped. Default 32,768. */
  eventBytesMax?: number;
  /** Most events that wait. Default 10,000. */
  queueEventsMax?: number;
  /** Most bytes that wait. Default 4,194,304. */
  queueBytesMax?: number;
  /** What a full queue drops. Default `drop-oldest`. */
  whenFull?: QueueBounds["whenFull"];
  /** Where events wait. Default `indexeddb`, and memory where there is none. */
  storage?: "indexeddb" | "memory";
  /** Longest wait for an answer, in milliseconds. Default 15,000. */
  requestTimeoutMs?: number;
  /** Upper limit of the first pause after a failure, in milliseconds; doubles with each further one. Default 500. */
  backoffMsMin?: number;
  /** Longest such pause, in milliseconds. Default 60,000. */
  backoffMsMax?: number;
  /** Longest pause that the service can request, in milliseconds. Default 3,600,000. */
  retryAfterMsMax?: number;
  /** How often a batch is sent again after an answer that is not the service's. Then it is split. Default 6. */
  badAnswersMax?: number;
  /** Whether events may be collected. With `pending`, they wait in memory. Default `granted`. */
  consent?: Consent;
  /** Whether times that the SDK sets follow the service's clock if the device's clock is wrong. Default true. */
  correctClock?: boolean;
  /** Whether a client in a browser immediately sends events that earlier pages left. Default true. */
  autoStart?: boolean;
  /** Sends the last events of a closing page. Default: `fetch` with `keepalive`. */
  closeTransport?: CloseTransport | undefined;
  /** Replaces `fetch`. */
  fetch?: typeof fetch;
  /** Called with each error that no caller receives. */
  onError?: ((error: AnalyticsError) => void) | undefined;
  /** Called with the verdicts on each batch, in the tab that sent it. */
  onVerdicts?: ((report: VerdictReport) => void) | undefined;
  /** Called with events that are dropped without being sent. */
  onDrop?: ((report: DropReport) => void) | undefined;
}

type Optional = "apiKey" | "orgId" | "closeTransport" | "onError" | "onVerdicts" | "onDrop";

/** Settings with their defaults. */
export type Settings = Required<Omit<TrackerOptions, Optional>> & Pick<TrackerOptions, Optional>;

const BATCH_EVENTS_MAX = 100;

/** Fills in the defaults. */
export function settingsOf(options: TrackerOptions): Settings {
  const isUsable = (value: unknown): boolean => value != null && !((value as number) < 0) && !Number.isNaN(value);
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => isUsable(value)));
  const settings = {
    flushAtEvents: 20,
    flushAfterMs: 2_000,
    batchEventsMax: BATCH_EVENTS_MAX,
    batchBytesMax: 30_000,
    eventBytesMax: 32_768,
    queueEventsMax: 10_000,
    queueBytesMax: 4_194_304,
    whenFull: "drop-oldest",
    storage: "indexeddb",
    requestTimeoutMs: 15_000,
    backoffMsMin: 500,
    backoffMsMax: 60_000,
    retryAfterMsMax: 3_600_000,
    badAnswersMax: 6,
    consent: "granted",
    correctClock: true,
    autoStart: true,
    fetch: (input, init) => globalThis.fetch(input, init),
    ...given,
  } as Settings;
  settings.baseUrl = String(settings.baseUrl ?? "").replace(/\/+$/, "");
  settings.batchEventsMax = Math.min(Math.max(1, Math.floor(settings.batchEventsMax)), BATCH_EVENTS_MAX);
  return settings;
}
