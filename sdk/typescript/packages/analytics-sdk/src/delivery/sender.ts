import type { ServiceClock } from "../clock.js";
import { AnalyticsError } from "../error.js";
import { byteLength, readEvent } from "../event.js";
import { ask, type Endpoint } from "../http.js";
import type { Pause } from "../queue/backend.js";
import { NO_PAUSE, type Queue } from "../queue/queue.js";
import type { Batch } from "../queue/record.js";
import type { Reporter } from "../reporter.js";
import type { Settings } from "../settings.js";
import { type Judgement, readTaken } from "./answer.js";
import { pauseMs } from "./backoff.js";
import { bodyOf, EVENTS_PATH, KEEPALIVE_BYTES_MAX } from "./call.js";
import type { PendingRecords } from "./pending.js";
import type { Judged, Resolution } from "./resolution.js";

/** Statuses that say nothing about the batch. 0: there was no answer. */
const WAITING = new Set([0, 408, 425, 429, 502, 503, 504]);

/** What a sender works with. */
export interface SenderParts {
  settings: Settings;
  endpoint: Endpoint;
  clock: ServiceClock;
  reporter: Reporter;
  pending: PendingRecords;
}

/**
 * Sends batches, and does to the queue what their answers say. Loaded after the page has tracked its first events.
 */
export class Sender {
  /** Bytes of requests under way that may outlive the page. */
  keepaliveBytes = 0;
  readonly #parts: SenderParts;
  #stop = new AbortController();

  constructor(parts: SenderParts) {
    this.#parts = parts;
  }

  /** Ends every request under way. */
  abort(): void {
    this.#stop.abort();
    this.#stop = new AbortController();
  }

  /**
   * Sends a batch once. The request is made before this returns: a closing page has no later.
   *
   * @param stored Resolves when the batch is in the queue, if it is not yet.
   * @returns The pause that it asks for; undefined when the next batch can follow.
   */
  async deliver(
    queue: Queue,
    batch: Batch,
    token: string | undefined,
    stored?: Promise<unknown>,
  ): Promise<Pause | undefined> {
    const outcome = await this.#send(batch, token).catch((error: AnalyticsError) => error);
    await stored;
    const isError = outcome instanceof AnalyticsError;
    if (isError && outcome.code === "ABORTED") {
      this.#parts.pending.settled(batch, [batch]);
      return NO_PAUSE;
    }
    if (isError && WAITING.has(outcome.status)) return this.#failed(queue, batch, outcome);
    if (isError || outcome.faults.length > 0) return this.#resolve(queue, batch, outcome);
    await this.#replace(queue, batch, []);
    this.#report(batch, { ...outcome, events: batch.events.map(readEvent), faults: [] });
    return undefined;
  }

  async #send(batch: Batch, token: string | undefined): Promise<Judgement> {
    const body = bodyOf(batch.events);
    const bytes = byteLength(body);
    const keepalive = this.keepaliveBytes + bytes <= KEEPALIVE_BYTES_MAX;
    if (keepalive) this.keepaliveBytes += bytes;
    try {
      const answer = await ask(this.#parts.endpoint, {
        method: "POST",
        path: EVENTS_PATH,
        headers: { "idempotency-key": batch.key },
        token,
        body,
        keepalive,
        signal: this.#stop.signal,
      });
      return readTaken(answer, batch.events.length);
    } finally {
      if (keepalive) this.keepaliveBytes -= bytes;
    }
  }

  /** Does to a batch that was not taken whole what can be done. */
  async #resolve(queue: Queue, batch: Batch, outcome: Judgement | AnalyticsError): Promise<Pause | undefined> {
    const { settings, clock, reporter } = this.#parts;
    let resolution: Resolution;
    try {
      const { resolve } = await import("./resolution.js");
      resolution = resolve(batch, outcome, { ...settings, clock });
    } catch (cause) {
      const message = "a part of the SDK cannot be loaded";
      return this.#failed(queue, batch, new AnalyticsError("NETWORK_ERROR", message, { cause, retryable: true }));
    }
    const { replacement, report, dropped = [], isError, pause } = resolution;
    await this.#replace(queue, batch, replacement);
    if (report !== undefined) this.#report(batch, report);
    reporter.dropped("undeliverable", dropped);
    if (isError) reporter.error(outcome as AnalyticsError);
    if (pause === undefined) return undefined;
    if (typeof pause === "object") return this.#pause(queue, pause.ms, false);
    const { retryAfterMs } = outcome as AnalyticsError;
    return this.#pause(queue, retryAfterMs, pause === "longest");
  }

  #report(batch: Batch, { events, accepted, duplicates, faults, isReplayed }: Judged): void {
    if (events.length === 0) return;
    this.#parts.reporter.verdicts({
      idempotencyKey: batch.key,
      events,
      accepted,
      duplicates,
      conflicts: faults.filter(({ code }) => code === "CONFLICT"),
      rejected: faults.filter(({ code }) => code !== "CONFLICT"),
      isReplayed,
    });
  }

  async #replace(queue: Queue, batch: Batch, others: Batch[]): Promise<void> {
    await queue.replace(batch, others);
    this.#parts.pending.settled(batch, others);
  }

  #failed(queue: Queue, batch: Batch, error: AnalyticsError): Promise<Pause> {
    this.#parts.pending.settled(batch, [batch]);
    this.#parts.reporter.error(error);
    return this.#pause(queue, error.retryAfterMs, false);
  }

  async #pause(queue: Queue, retryAfterMs: number | undefined, isLong: boolean): Promise<Pause> {
    const { backoffMsMin, backoffMsMax, retryAfterMsMax } = this.#parts.settings;
    const { failures } = (await queue.state()).pause;
    const bounds = { msMin: isLong ? backoffMsMax : backoffMsMin, msMax: backoffMsMax, retryAfterMsMax };
    const until = Date.now() + pauseMs(failures, retryAfterMs, bounds);
    const pause = { until, failures: failures + 1, isOrdered: retryAfterMs !== undefined };
    await queue.state(pause);
    return pause;
  }
}
