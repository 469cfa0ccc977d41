import { badResponse, type HttpAnswer } from "../http.js";

/** Why one event of a batch was not taken. */
export interface Fault {
  /** Its place in the batch. */
  index: number;
  code: string;
  field: string;
  message: string;
}

/** What became of a batch whose events were judged one by one. */
export interface Judgement {
  accepted: number;
  duplicates: number;
  /** Those not taken, in order. */
  faults: Fault[];
  /** Whether this is the answer to an earlier attempt. */
  isReplayed: boolean;
}

interface TakenBody {
  accepted: number;
  duplicates: number;
  rejected: Fault[];
}

const isCount = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 0;

/**
 * Reads a successful answer to a batch of `events` events.
 *
 * @throws AnalyticsError `BAD_RESPONSE` when it does not account for every event.
 */
export function readTaken(answer: HttpAnswer, events: number): Judgement {
  const body = answer.json as Partial<TakenBody> | null;
  const { accepted, duplicates, rejected } = body ?? {};
  const isWhole =
    isCount(accepted) &&
    isCount(duplicates) &&
    Array.isArray(rejected) &&
    rejected.every((fault) => isCount(fault?.index) && fault.index < events) &&
    (accepted as number) + (duplicates as number) + rejected.length === events;
  if (!isWhole) throw badResponse(answer.status);
  return {
    accepted: accepted as number,
    duplicates: duplicates as number,
    faults: rejected as Fault[],
    isReplayed: answer.headers.get("idempotency-replayed") === "true",
  };
}
