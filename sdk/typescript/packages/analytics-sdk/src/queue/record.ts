/** One or more events that wait to be sent. */
export interface QueueRecord {
  /** Orders the queue: an ordered UUIDv7; the later part of a batch that was split has a suffix. */
  id: string;
  /** The idempotency key. A record that has one is a batch: its events never change under this key. */
  key?: string;
  /** The events as JSON. */
  events: string[];
  /** Their bytes together. */
  bytes: number;
  /** How often an answer to it could not be understood. */
  badAnswers: number;
}

/** A record that has its idempotency key. */
export interface Batch extends QueueRecord {
  key: string;
}

/** What a batch may hold. */
export interface BatchBounds {
  eventsMax: number;
  bytesMax: number;
}

/** The leading single events that fit into one batch. At least one, if the first record is one. */
export function leadingSingles(records: QueueRecord[], bounds: BatchBounds): QueueRecord[] {
  const taken: QueueRecord[] = [];
  let bytes = 0;
  for (const record of records) {
    bytes += record.bytes;
    const isFull = taken.length === bounds.eventsMax || bytes > bounds.bytesMax;
    if (record.key !== undefined || (isFull && taken.length > 0)) break;
    taken.push(record);
  }
  return taken;
}

/** One batch of these records, in the place of the first. */
export function batchOf(records: QueueRecord[], key: string): Batch {
  const events = records.flatMap((record) => record.events);
  const bytes = records.reduce((sum, record) => sum + record.bytes, 0);
  return { id: records[0]?.id ?? "", key, events, bytes, badAnswers: 0 };
}

const ID_LENGTH = 36;

/** The id of the record that a record is a part of, or its own. */
export function wholeId(id: string): string {
  return id.slice(0, ID_LENGTH);
}

/** The id of the part of a record that begins with this event. */
export function partId(id: string, event: number): string {
  const start = Number(id.slice(ID_LENGTH + 1)) + event;
  return `${wholeId(id)}.${String(start).padStart(4, "0")}`;
}
