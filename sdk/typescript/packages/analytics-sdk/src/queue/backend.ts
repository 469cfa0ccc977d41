import type { QueueRecord } from "./record.js";

/** Until when nothing is sent, for every tab. */
export interface Pause {
  /** Milliseconds since 1970. */
  until: number;
  /** Failures in a row. */
  failures: number;
  /** Whether the service named the time, so that coming back online does not end it. */
  isOrdered: boolean;
}

/** What is known of a queue as a whole. */
export interface QueueState {
  events: number;
  bytes: number;
  /** The id of the newest record that was ever added. */
  lastId: string;
  pause: Pause;
}

/** What can be done to a queue in one step, which other tabs see whole or not at all. */
export interface Transaction {
  /** Up to so many records, in order. */
  first(count: number): Promise<QueueRecord[]>;
  get(id: string): Promise<QueueRecord | undefined>;
  put(record: QueueRecord): void;
  delete(id: string): void;
  state(): Promise<QueueState | undefined>;
  setState(state: QueueState): void;
  clear(): void;
}

/** Where records are kept. */
export interface Backend {
  /** Runs one step after the other. Resolves once it is safe. */
  transact<T>(run: (transaction: Transaction) => Promise<T>): Promise<T>;
  close(): void;
}

/** Memory, which ends with the page. */
export function memoryBackend(): Backend {
  const records = new Map<string, QueueRecord>();
  let current: QueueState | undefined;
  let last: Promise<unknown> = Promise.resolve();
  const transaction: Transaction = {
    first: async (count) => {
      const ids = [...records.keys()].sort().slice(0, count);
      return ids.map((id) => records.get(id) as QueueRecord);
    },
    get: async (id) => records.get(id),
    put: (record) => records.set(record.id, record),
    delete: (id) => records.delete(id),
    state: async () => current,
    setState: (state) => {
      current = state;
    },
    clear: () => {
      records.clear();
      current = undefined;
    },
  };
  return {
    transact: (run) => {
      const done = last.then(() => run(transaction));
      last = done.catch(() => {});
      return done;
    },
    close: () => {},
  };
}
