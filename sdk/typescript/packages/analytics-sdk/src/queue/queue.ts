import { limited } from "../wait.js";
import { type Backend, memoryBackend, type Pause, type QueueState, type Transaction } from "./backend.js";
import { type Batch, type BatchBounds, batchOf, leadingSingles, type QueueRecord } from "./record.js";

/** Longest wait for a backend to open, in milliseconds. Some browsers never answer. */
const OPEN_MS_MAX = 3_000;
/** Records that are looked at together to make room. */
const DROP_STEP = 100;

export const NO_PAUSE: Pause = { until: 0, failures: 0, isOrdered: false };

/** What the queue may hold. */
export interface QueueBounds {
  eventsMax: number;
  bytesMax: number;
  whenFull: "drop-oldest" | "drop-newest";
}

/** What a queue is made of. */
export interface QueueParts {
  /** Opens what keeps it over pages; undefined where nothing does. */
  open: (() => Promise<Backend>) | undefined;
  bounds: QueueBounds;
  /** The records that go on in memory when the backend fails. */
  survivors: () => QueueRecord[];
  onFailure: (cause: unknown) => void;
}

/**
 * Where events wait, in order. Every operation is atomic, also against other tabs. When what keeps it over pages fails,
 * it goes on in memory for the rest of the page.
 */
export class Queue {
  /** Whether what it holds survives the page. */
  isDurable: boolean;
  readonly #parts: QueueParts;
  #backend: Promise<Backend>;

  constructor(parts: QueueParts) {
    this.#parts = parts;
    this.isDurable = parts.open !== undefined;
    const opened = parts.open ? limited(parts.open(), { timeoutMs: OPEN_MS_MAX }) : Promise.resolve(memoryBackend());
    this.#backend = opened.catch((cause) => this.#failOver(cause));
  }

  /** Appends records; answers those dropped to stay within the bounds. */
  add(records: QueueRecord[]): Promise<QueueRecord[]> {
    const { whenFull } = this.#parts.bounds;
    return this.#withState(async (transaction, state) => {
      const dropped: QueueRecord[] = [];
      for (const record of records) {
        count(state, record, 1);
        if (whenFull === "drop-newest" && this.#isOver(state)) dropped.push(count(state, record, -1));
        else transaction.put(record);
        // It may be less after the clock was set back.
        if (record.id > state.lastId) state.lastId = record.id;
      }
      while (this.#isOver(state)) {
        const oldest = await transaction.first(DROP_STEP);
        // The first batch may be on its way.
        if (oldest[0]?.key !== undefined) oldest.shift();
        if (oldest.length === 0) break;
        for (const record of oldest) {
          if (!this.#isOver(state)) break;
          dropped.push(count(state, record, -1));
          transaction.delete(record.id);
        }
      }
      return dropped;
    });
  }

  /** The first batch. Where the first records are single events, they become one, with `key`. */
  head(bounds: BatchBounds, key: string): Promise<Batch | undefined> {
    return this.#transact(async (transaction) => {
      const [first] = await transaction.first(1);
      // A batch without a list of events fails here, as what this code has not written.
      if (first === undefined || (first.key !== undefined && first.events.length >= 0))
        return first as Batch | undefined;
      const singles = leadingSingles(await transaction.first(bounds.eventsMax), bounds);
      const batch = batchOf(singles, key);
      merge(transaction, singles, batch);
      return batch;
    });
  }

  /** Makes single events one batch, if all of them are still there. */
  freeze(singles: QueueRecord[], batch: Batch): Promise<void> {
    return this.#transact(async (transaction) => {
      const there = await Promise.all(singles.map(({ id }) => transaction.get(id)));
      if (there.every((record) => record !== undefined && record.key === undefined)) merge(transaction, singles, batch);
    });
  }

  /**
   * Replaces a batch, if it is still there, by others, often none. Another batch in its place stays: another tab has
   * made it of the same single events and of further ones.
   */
  replace({ id, key }: Batch, others: QueueRecord[]): Promise<void> {
    return this.#withState(async (transaction, state) => {
      const record = await transaction.get(id);
      if (record?.key !== key) return;
      count(state, record, -1);
      transaction.delete(id);
      for (const other of others) transaction.put(count(state, other, 1));
    });
  }

  /** Changes the pause, if it is given another; answers what it is then, and the newest record's id. */
  state(pause?: Pause): Promise<QueueState> {
    return this.#withState(async (_, state) => {
      if (pause !== undefined) state.pause = pause;
      return state;
    });
  }

  /** Removes everything. */
  clear(): Promise<void> {
    return this.#transact(async (transaction) => transaction.clear());
  }

  close(): void {
    void this.#backend.then((backend) => backend.close());
  }

  #isOver({ events, bytes }: QueueState): boolean {
    const { eventsMax, bytesMax } = this.#parts.bounds;
    return events > eventsMax || bytes > bytesMax;
  }

  #withState<T>(run: (transaction: Transaction, state: QueueState) => Promise<T>): Promise<T> {
    return this.#transact(async (transaction) => {
      const state = { events: 0, bytes: 0, lastId: "", pause: NO_PAUSE, ...(await transaction.state()) };
      const result = await run(transaction, state);
      transaction.setState(state);
      return result;
    });
  }

  async #transact<T>(run: (transaction: Transaction) => Promise<T>): Promise<T> {
    const used = this.#backend;
    const backend = await used;
    try {
      return await backend.transact(run);
    } catch (cause) {
      // What is stored there is nothing that this code has written. Later pages begin with nothing.
      if (/^(?:Type|Data)Error/.test((cause as Error)?.name)) {
        await backend.transact(async (transaction) => transaction.clear()).catch(() => {});
      }
      // Of several operations that fail together, the first one changes the backend.
      if (this.#backend === used) this.#backend = this.#failOver(cause);
      return (await this.#backend).transact(run);
    }
  }

  async #failOver(cause: unknown): Promise<Backend> {
    this.isDurable = false;
    const { survivors, onFailure } = this.#parts;
    const memory = memoryBackend();
    onFailure(cause);
    this.#backend = Promise.resolve(memory);
    await this.add(survivors());
    return memory;
  }
}

/** Adds a record to the sums, or takes it off with `sign` -1. */
function count(state: QueueState, record: QueueRecord, sign: 1 | -1): QueueRecord {
  state.events += sign * record.events.length;
  state.bytes += sign * record.bytes;
  return record;
}

/** Puts a batch in the place of the single events that it is made of. */
function merge(transaction: Transaction, singles: QueueRecord[], batch: Batch): void {
  for (const { id } of singles) transaction.delete(id);
  transaction.put(batch);
}
