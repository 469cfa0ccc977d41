import { type Batch, type QueueRecord, wholeId } from "../queue/record.js";

interface Waiter {
  upTo: string;
  resolve: () => void;
}

/**
 * The records of this client that are not known to be answered, in memory: for a closing page, which cannot wait for
 * the store, and for callers who wait for answers.
 */
export class PendingRecords {
  #records = new Map<string, QueueRecord>();
  /** Batches on their way, and those that were handed over without an answer. */
  #sent = new Set<QueueRecord>();
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

  /** All that are in the store, or were before it failed. Of those with one id, the last has the most events. */
  survivors(): QueueRecord[] {
    return [...[...this.#sent].reverse(), ...this.idle()].filter(({ id }) => !this.#unsaved.has(id));
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

  /**
   * Called before the store is asked for its first batch. What it returns learns from that batch which of the records
   * until then have been answered, by this tab or by another.
   */
  learner(): (first: Batch | undefined) => void {
    const saved = this.survivors();
    const waiters = [...this.#waiters];
    return (first) => {
      const isAnswered = (id: string): boolean => first === undefined || id < wholeId(first.id);
      for (const record of saved.filter(({ id }) => isAnswered(id))) {
        this.#records.delete(record.id);
        this.#sent.delete(record);
      }
      for (const waiter of waiters.filter(({ upTo }) => isAnswered(upTo))) {
        this.#waiters.delete(waiter);
        waiter.resolve();
      }
    };
  }

  /** Notes that a batch is on its way. */
  sending(batch: Batch): void {
    const events = new Set(batch.events);
    for (const record of this.#records.values()) {
      const isSingleOfIt = record.key === undefined && events.has(record.events[0] as string);
      if (record.id === batch.id || isSingleOfIt) this.#records.delete(record.id);
    }
    this.#sent.add(batch);
  }

  /** Notes what waits in the store for another attempt after a batch was sent; often nothing. */
  settled(batch: Batch, others: Batch[]): void {
    if (this.#sent.delete(batch)) for (const other of others) this.#records.set(other.id, other);
  }

  /** Forgets all records; whoever waits is done. */
  clear(): void {
    this.#records.clear();
    this.#sent.clear();
    this.#unsaved.clear();
    for (const { resolve } of this.#waiters) resolve();
    this.#waiters.clear();
  }
}
