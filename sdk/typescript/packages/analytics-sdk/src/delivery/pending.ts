import { type Batch, type QueueRecord, wholeId } from "../queue/record.js";

interface Waiter {
  upTo: string;
  resolve: () => void;
}

/** What was known to be in the store, and who waited for it, at some time. */
export interface Snapshot {
  saved: string[];
  waiters: Waiter[];
}

/**
 * The records of this client that are not known to be answered, in memory: for a closing page, which cannot wait for
 * the store, and for callers who wait for answers.
 */
export class PendingRecords {
  #records = new Map<string, QueueRecord>();
  #unsaved = new Set<string>();
  readonly #waiters = new Set<Waiter>();

  /** Adds a record that is not in the store yet. */
  add(record: QueueRecord): void {
    this.#records.set(record.id, record);
    this.#unsaved.add(record.id);
  }

  /** Notes that records are in the store. */
  saved(records: QueueRecord[]): void {
    for (const { id } of records) this.#unsaved.delete(id);
  }

  remove(records: QueueRecord[]): void {
    for (const { id } of records) this.#records.delete(id);
  }

  /** Those that are not on their way, in order. */
  idle(): QueueRecord[] {
    return [...this.#records.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** Those of them that were in the store before it failed. */
  survivors(): QueueRecord[] {
    return this.idle().filter(({ id }) => !this.#unsaved.has(id));
  }

  /** How many events are not on their way. */
  get idleEvents(): number {
    let events = 0;
    for (const record of this.#records.values()) events += record.events.length;
    return events;
  }

  /** Resolves once every record up to this id is answered. All of them must be in the store. */
  answered(upTo: string): Promise<void> {
    return new Promise((resolve) => {
      this.#waiters.add({ upTo: wholeId(upTo), resolve });
    });
  }

  /** Taken before the store is asked for its first batch. */
  snapshot(): Snapshot {
    const saved = [...this.#records.keys()].filter((id) => !this.#unsaved.has(id));
    return { saved, waiters: [...this.#waiters] };
  }

  /** Learns from the store's first batch what has been answered, by this tab or by another. */
  learn({ saved, waiters }: Snapshot, first: Batch | undefined): void {
    const isAnswered = (id: string): boolean => first === undefined || id < wholeId(first.id);
    for (const id of saved.filter(isAnswered)) this.#records.delete(id);
    for (const waiter of waiters.filter(({ upTo }) => isAnswered(upTo))) {
      this.#waiters.delete(waiter);
      waiter.resolve();
    }
  }

  /** Notes that a batch is on its way. */
  sending(batch: Batch): void {
    const events = new Set(batch.events);
    for (const record of this.#records.values()) {
      const isSingleOfIt = record.key === undefined && events.has(record.events[0] as string);
      if (record.id === batch.id || isSingleOfIt) this.#records.delete(record.id);
    }
  }

  /** Notes that a batch waits in the store for another attempt. */
  failed(batch: Batch): void {
    this.#records.set(batch.id, batch);
  }

  /** Forgets all records; whoever waits is done. */
  clear(): void {
    this.#records.clear();
    this.#unsaved.clear();
    for (const { resolve } of this.#waiters) resolve();
    this.#waiters.clear();
  }
}
