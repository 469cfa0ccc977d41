import { ServiceClock } from "./clock.js";
import { ConsentSwitch } from "./consent.js";
import { bodyOf, EVENTS_PATH, KEEPALIVE_BYTES_MAX } from "./delivery/call.js";
import { exclusively } from "./delivery/lock.js";
import { PendingRecords } from "./delivery/pending.js";
import type { Sender } from "./delivery/sender.js";
import { AnalyticsError } from "./error.js";
import { byteLength, type EventPayload, type TrackedEvent, writeEvent } from "./event.js";
import type { Endpoint } from "./http.js";
import { PageLifecycle } from "./page.js";
import type { Pause } from "./queue/backend.js";
import { openIndexedDb } from "./queue/indexed-db.js";
import { NO_PAUSE, Queue } from "./queue/queue.js";
import { type Batch, type BatchBounds, batchOf, leadingSingles, type QueueRecord } from "./queue/record.js";
import { Reporter } from "./reporter.js";
import {
  type CloseTransport,
  type Consent,
  type DropReason,
  type Settings,
  settingsOf,
  type TrackerOptions,
} from "./settings.js";
import { organizationOf } from "./token.js";
import { orderedIds, uuid7 } from "./uuid.js";
import { limited, TIMER_MS_MAX, type WaitOptions } from "./wait.js";

/** How long after a page was hidden its events are sent without waiting for others, in milliseconds. */
const CLOSING_MS = 1_000;
const SHUTDOWN_MS_MAX = 5_000;
/** How long a shutdown waits for aborted calls to end, in milliseconds. */
const ABORT_MS_MAX = 500;

/**
 * Sends events so that each counts exactly once.
 *
 * An event is given its id and its time when it is tracked, is queued in IndexedDB, and stays there until the service
 * has answered for it: through failures, reloads and crashes. Nothing here throws into the page or rejects, except
 * {@link flush} when its caller limits the wait.
 */
export class EventTracker {
  protected readonly settings: Settings;
  protected readonly endpoint: Endpoint;
  readonly #clock = new ServiceClock();
  readonly #reporter: Reporter;
  readonly #batchBounds: BatchBounds;
  #sender: Sender | undefined;
  readonly #pending = new PendingRecords();
  readonly #consent: ConsentSwitch;
  readonly #page: PageLifecycle;
  readonly #nextId = orderedIds();
  #queue: Queue | undefined;
  /** What tells this queue from those of other services and organizations of the same page. */
  #queueName: Promise<string> = Promise.resolve("");
  #organization = "";
  #lastToken: string | undefined;
  /** Events that wait for consent. */
  #held: string[] = [];
  #unsaved: QueueRecord[] = [];
  #saved: Promise<void> = Promise.resolve();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  #pausedUntil = 0;
  #closingUntil = 0;
  #closing = new Set<Promise<void>>();
  #run: Promise<void> | undefined;
  #isAskedAgain = false;
  #isStarted = false;
  #isShutDown = false;

  constructor(options: TrackerOptions) {
    this.settings = settingsOf(options);
    const { settings } = this;
    const { baseUrl, fetch, requestTimeoutMs: timeoutMs } = settings;
    this.endpoint = { baseUrl, fetch, timeoutMs, clock: this.#clock };
    this.#reporter = new Reporter(settings);
    this.#batchBounds = { eventsMax: settings.batchEventsMax, bytesMax: settings.batchBytesMax };
    this.#consent = new ConsentSwitch(`tallyhouse-consent:${baseUrl}`, settings.consent);
    this.#page = new PageLifecycle({
      hidden: () => this.#onHidden(),
      shown: () => this.#kick(),
      online: () => this.#onOnline(),
    });
    if (settings.autoStart && globalThis.document !== undefined) this.start();
  }

  /** Queues an event. Resolves when it is stored in the queue, or dropped, which is reported to `onDrop`. */
  trackEvent(event: EventPayload): Promise<void> {
    return this.#track([event], false);
  }

  /**
   * Queues events and sends them soon, in calls of up to `batchEventsMax`, each with an idempotency key of its own that
   * stays the same however often it is sent. Resolves as {@link trackEvent} does.
   */
  trackEvents(events: EventPayload[]): Promise<void> {
    return this.#track(events, true);
  }

  /**
   * Sends waiting events, and resolves when all events in the queue so far are answered, or the client is shut down. A
   * process of Node.js stays alive while it waits. Without consent it resolves at once.
   *
   * @throws AnalyticsError `TIMEOUT` or `ABORTED` when the caller's limits end the wait.
   */
  flush(options: WaitOptions = {}): Promise<void> {
    const flushed = limited(this.#flush(), options);
    // A caller who does not wait must not find an unhandled rejection.
    flushed.catch(() => {});
    return flushed;
  }

  /** Listens to the page and sends what earlier pages left. Done by the constructor and by tracking. */
  start(): void {
    if (this.#isStarted || this.#isShutDown) return;
    this.#isStarted = true;
    this.#page.listen();
    this.#kick();
  }

  /** Stops listening, after sending what waits as if the page were closed. It can be started again. */
  stop(): void {
    if (!this.#isStarted) return;
    this.#isStarted = false;
    this.#page.unlisten();
    this.#clearTimer();
    this.#sendLast();
  }

  /** Sends waiting events for up to `timeoutMs` (default 5,000), and ends. Remaining events are left to later pages. */
  async shutdown({ timeoutMs = SHUTDOWN_MS_MAX, signal }: WaitOptions = {}): Promise<void> {
    if (this.#isShutDown) return;
    await this.flush({ timeoutMs, signal }).catch(() => {});
    this.#isShutDown = true;
    this.#isStarted = false;
    this.#page.unlisten();
    this.#clearTimer();
    this.#sender?.abort();
    this.#reporter.dropped("shut-down", this.#held.splice(0));
    const queue = this.#queue;
    const ended = Promise.allSettled([this.#saved, this.#run, ...this.#closing]);
    // Another tab may hold the lock for long. Its own queue ends with this client.
    if (queue?.isDurable === false) {
      await limited(ended, { timeoutMs: ABORT_MS_MAX }).catch(() => {});
      this.#drop("shut-down", this.#pending.idle());
    }
    this.#pending.clear();
    void ended.then(() => queue?.close());
  }

  /** Whether events may be collected. */
  get consent(): Consent {
    return this.#consent.state;
  }

  /**
   * Allows or forbids collecting events. `denied` also removes all waiting events, and is remembered for later pages
   * of this origin until it is set to something else.
   */
  async setConsent(consent: Consent): Promise<void> {
    this.#consent.state = consent;
    if (consent === "pending") return;
    const held = this.#held.splice(0);
    if (consent === "granted") return held.length > 0 ? this.#append(held, false) : this.#kick();
    this.#reporter.dropped("consent", held);
    this.#sender?.abort();
    this.#drop("consent", this.#pending.idle());
    await this.#saved;
    await this.#open().clear();
    this.#pending.clear();
  }

  /**
   * The token for a request, if there is one.
   *
   * @throws AnalyticsError `TOKEN_UNAVAILABLE` when `apiKey` fails, or takes longer than an answer may.
   */
  protected async token(): Promise<string | undefined> {
    const { apiKey, requestTimeoutMs: timeoutMs } = this.settings;
    try {
      // A page that closes needs a token that is given as a text at once.
      this.#lastToken = typeof apiKey === "function" ? await limited(Promise.resolve(apiKey()), { timeoutMs }) : apiKey;
      return this.#lastToken;
    } catch (cause) {
      throw new AnalyticsError("TOKEN_UNAVAILABLE", "apiKey failed", { cause, retryable: true });
    }
  }

  async #track(given: EventPayload[], isBatch: boolean): Promise<void> {
    const payloads = Array.from(given ?? []);
    const consent = this.#consent.state;
    if (this.#isShutDown || consent === "denied") {
      this.#reporter.droppedPayloads(this.#isShutDown ? "shut-down" : "consent", payloads as Partial<TrackedEvent>[]);
      return;
    }
    const events = payloads.flatMap((payload) => this.#write(payload));
    if (events.length > 0 && consent === "granted") return this.#append(events, isBatch);
    this.#held.push(...events);
    const { queueEventsMax, queueBytesMax, whenFull } = this.settings;
    const dropped: string[] = [];
    for (let { length } = this.#held.join(""); this.#held.length > queueEventsMax || length > queueBytesMax; ) {
      const [event = ""] = this.#held.splice(whenFull === "drop-oldest" ? 0 : -1, 1);
      length -= event.length;
      dropped.push(event);
    }
    this.#reporter.dropped("queue-full", dropped);
  }

  /** The event as JSON; none when it cannot be sent. */
  #write(payload: EventPayload): string[] {
    try {
      const json = writeEvent(payload, this.settings.correctClock ? this.#clock.now() : Date.now());
      const { eventBytesMax } = this.settings;
      if (byteLength(json) <= eventBytesMax) return [json];
      throw new AnalyticsError("INVALID_EVENT", `the event has more than ${eventBytesMax} bytes of JSON`);
    } catch (error) {
      this.#reporter.error(error as AnalyticsError);
      this.#reporter.droppedPayloads("invalid", [payload as Partial<TrackedEvent>]);
      return [];
    }
  }

  #append(events: string[], isBatch: boolean): Promise<void> {
    const singles = events.map((event): QueueRecord => {
      return { id: this.#nextId(Date.now()), events: [event], bytes: byteLength(event), badAnswers: 0 };
    });
    const records = isBatch ? this.#batches(singles) : singles;
    for (const record of records) this.#pending.add(record);
    this.#unsaved.push(...records);
    this.#open();
    this.start();
    const isFull = isBatch || this.#pending.idleEvents >= this.settings.flushAtEvents;
    this.#wake(Math.max(isFull ? 0 : this.settings.flushAfterMs, this.#pausedUntil - Date.now()));
    if (Date.now() < this.#closingUntil) queueMicrotask(() => this.#sendLast());
    // Everything that is tracked in one turn is written together.
    this.#saved = this.#saved.then(() => this.#save()).catch((cause) => this.#failed("events cannot be kept", cause));
    return this.#saved;
  }

  /** Single events as batches that fit into a call. */
  #batches(singles: QueueRecord[]): Batch[] {
    const batches: Batch[] = [];
    for (let rest = singles; rest.length > 0; ) {
      const taken = leadingSingles(rest, this.#batchBounds);
      batches.push(batchOf(taken, uuid7(Date.now())));
      rest = rest.slice(taken.length);
    }
    return batches;
  }

  async #save(): Promise<void> {
    const records = this.#unsaved.splice(0);
    if (records.length === 0) return;
    const dropped = await this.#open().add(records);
    this.#pending.saved(records);
    this.#drop("queue-full", dropped);
  }

  #drop(reason: DropReason, records: QueueRecord[]): void {
    this.#pending.remove(records);
    const events = records.flatMap((record) => record.events);
    this.#reporter.dropped(reason, events);
  }

  #failed(message: string, cause: unknown): void {
    this.#reporter.error(new AnalyticsError("INTERNAL", message, { cause, retryable: true }));
  }

  #open(): Queue {
    if (this.#queue !== undefined) return this.#queue;
    const { storage, baseUrl, orgId, queueEventsMax: eventsMax, queueBytesMax: bytesMax, whenFull } = this.settings;
    this.#organization = orgId ?? "";
    const named = this.token().then((token) => {
      this.#organization ||= organizationOf(token);
      return `tallyhouse:${baseUrl}:${this.#organization}`;
    });
    this.#queueName = named.catch(() => "");
    // Events whose organization cannot be told wait in memory.
    const isDurable = storage === "indexeddb" && globalThis.indexedDB !== undefined;
    this.#queue = new Queue({
      open: isDurable ? () => named.then(openIndexedDb) : undefined,
      bounds: { eventsMax, bytesMax, whenFull },
      survivors: () => this.#pending.survivors(),
      onFailure: (cause) => {
        const message = "events wait in memory, since IndexedDB cannot be used";
        this.#reporter.error(new AnalyticsError("STORAGE_UNAVAILABLE", message, { cause }));
      },
    });
    return this.#queue;
  }

  async #flush(): Promise<void> {
    await this.#saved;
    const isInPage = globalThis.document !== undefined;
    if (this.#consent.state !== "granted" || this.#isShutDown || (this.#queue === undefined && !isInPage)) return;
    const answered = this.#pending.answered((await this.#open().state()).lastId);
    this.#kick();
    return answered;
  }

  #wake(ms: number): void {
    const at = Date.now() + ms;
    if (at >= this.#timerAt) return;
    this.#clearTimer();
    this.#timerAt = at;
    const onTime = (): void => {
      this.#clearTimer();
      this.#kick();
    };
    this.#timer = setTimeout(onTime, Math.min(ms, TIMER_MS_MAX));
    // Node.js: events that nobody waits for must not keep the process alive.
    (this.#timer as { unref?: () => void }).unref?.();
  }

  #clearTimer(): void {
    clearTimeout(this.#timer);
    this.#timerAt = Number.POSITIVE_INFINITY;
  }

  /** Sends what waits, now, or again after the run under way. */
  #kick(): void {
    this.#isAskedAgain = this.#run !== undefined;
    // Without consent, not even the queue is opened: that stores something.
    if (this.#isAskedAgain || this.#isShutDown || this.#consent.state !== "granted") return;
    const queue = this.#open();
    this.#run = Promise.all([this.#queueName, this.#loadSender()])
      .then(([name, sender]) => {
        const send = (): Promise<void> => this.#sendAll(queue, sender);
        return queue.isDurable ? exclusively(name, send) : send();
      })
      .catch((cause: unknown) => {
        this.#failed("sending failed", cause);
        this.#wake(this.settings.backoffMsMax);
      })
      .then(() => {
        this.#run = undefined;
        if (this.#isAskedAgain) this.#kick();
      });
  }

  async #loadSender(): Promise<Sender> {
    const { Sender } = await import("./delivery/sender.js");
    const { settings, endpoint } = this;
    const parts = { settings, endpoint, clock: this.#clock, reporter: this.#reporter, pending: this.#pending };
    this.#sender ??= new Sender(parts);
    return this.#sender;
  }

  /** Sends batch after batch until there is none or a pause is asked for. */
  async #sendAll(queue: Queue, sender: Sender): Promise<void> {
    await Promise.allSettled(this.#closing);
    while (!this.#isShutDown && this.#consent.state === "granted") {
      const { pause } = await queue.state();
      const wait = this.#waitOf(pause);
      this.#pausedUntil = Date.now() + wait;
      if (wait > 0) return this.#wake(wait);
      const learn = this.#pending.learner();
      const batch = await queue.head(this.#batchBounds, uuid7(Date.now()));
      learn(batch);
      if (batch === undefined) return;
      const token = await this.#tokenForQueue();
      if (token === null) return this.#wake(this.settings.backoffMsMax);
      this.#pending.sending(batch);
      const asked = await sender.deliver(queue, batch, token);
      if (asked === undefined && pause.failures > 0) await queue.state(NO_PAUSE);
    }
    if (this.#consent.state === "denied") this.#pending.clear();
  }

  /** How long to wait, in milliseconds. A pause beyond all bounds comes from a clock that was wrong. */
  #waitOf(pause: Pause): number {
    const { retryAfterMsMax, backoffMsMin, backoffMsMax } = this.settings;
    const wait = pause.until - Date.now();
    return wait > Math.max(retryAfterMsMax + backoffMsMin, backoffMsMax) ? 0 : Math.max(0, wait);
  }

  /** The token; null when there is none to send this queue with, or no network. */
  async #tokenForQueue(): Promise<string | undefined | null> {
    if (globalThis.navigator?.onLine === false) return null;
    try {
      const token = await this.token();
      if (this.#isOfQueue(token)) return token;
      const message = "the token is another organization's than the queued events";
      this.#reporter.error(new AnalyticsError("WRONG_ORGANIZATION", message));
    } catch (error) {
      this.#reporter.error(error as AnalyticsError);
    }
    return null;
  }

  /** Whether a token is of the queue's organization. About one that names none, the service decides. */
  #isOfQueue(token: string | undefined): boolean {
    const organization = organizationOf(token);
    this.#organization ||= organization;
    return !organization || organization === this.#organization;
  }

  /**
   * Sends what is not on its way without waiting for anything, in requests that outlive the page. There is no time for
   * the lock: another tab may send the same at the same moment, which counts once.
   */
  #sendLast(): void {
    const queue = this.#queue;
    if (queue === undefined || this.#consent.state !== "granted") return;
    // What stays in the queue is sent by a later page. Memory has none.
    if (queue.isDurable && Date.now() < this.#pausedUntil) return;
    if (this.settings.apiKey !== undefined && this.#lastToken === undefined) return;
    if (!this.#isOfQueue(this.#lastToken)) return;
    let inFlight = 0;
    for (let rest = this.#pending.idle(); rest.length > 0; ) {
      const singles = leadingSingles(rest, this.#batchBounds);
      const batch = singles.length > 0 ? batchOf(singles, uuid7(Date.now())) : (rest[0] as Batch);
      rest = rest.slice(singles.length || 1);
      const bytes = byteLength(bodyOf(batch.events));
      inFlight = this.#sender?.keepaliveBytes ?? inFlight;
      if (inFlight + bytes > KEEPALIVE_BYTES_MAX) return;
      inFlight += bytes;
      this.#pending.sending(batch);
      this.#sendClosing(queue, batch, singles);
    }
  }

  #sendClosing(queue: Queue, batch: Batch, singles: QueueRecord[]): void {
    if (this.#handOver(this.settings.closeTransport, batch)) return;
    const sender = this.#sender;
    if (sender === undefined) {
      this.#handOver(this.#post, batch);
      return;
    }
    const frozen = singles.length > 0 ? this.#saved.then(() => queue.freeze(singles, batch)) : undefined;
    const done: Promise<void> = sender
      .deliver(queue, batch, this.#lastToken, frozen)
      .catch((cause) => this.#failed("sending failed", cause))
      .then(() => {
        this.#closing.delete(done);
        if (this.#isStarted) this.#kick();
      });
    this.#closing.add(done);
  }

  /** Whether a transport has taken a batch over. */
  #handOver(transport: CloseTransport | undefined, { events, key }: Batch): boolean {
    try {
      return transport?.(bodyOf(events), key) === true;
    } catch (cause) {
      this.#failed("sending failed", cause);
      return false;
    }
  }

  /** Sends a call whose answer nobody waits for: the page may close before the sender is loaded. */
  readonly #post: CloseTransport = (body, key) => {
    const { baseUrl, fetch } = this.settings;
    const headers: Record<string, string> = { "content-type": "application/json", "idempotency-key": key };
    if (this.#lastToken) headers.authorization = `Bearer ${this.#lastToken}`;
    const init = { method: "POST", headers, body, keepalive: true, credentials: "omit" } as const;
    fetch(baseUrl + EVENTS_PATH, init).catch(() => {});
    return true;
  };

  #onHidden(): void {
    this.#closingUntil = Date.now() + CLOSING_MS;
    this.#sendLast();
  }

  async #onOnline(): Promise<void> {
    if (this.#consent.state !== "granted") return;
    const queue = this.#open();
    const { pause } = await queue.state();
    if (!pause.isOrdered) await queue.state(NO_PAUSE);
    this.#kick();
  }
}
