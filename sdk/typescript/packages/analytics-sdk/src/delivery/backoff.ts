/** Bounds of the pauses between attempts, in milliseconds. */
export interface BackoffBounds {
  msMin: number;
  msMax: number;
  /** The longest pause that a `Retry-After` may ask for. */
  retryAfterMsMax: number;
}

/**
 * The pause after so many failures in a row, in milliseconds.
 *
 * Without a `Retry-After`, it is exponential with full jitter: evenly between 0 and the exponential. With one, it is
 * that wait and up to `msMin` more, so that clients that were turned away together do not come back together.
 */
export function pauseMs(failures: number, retryAfter: number | undefined, bounds: BackoffBounds): number {
  if (retryAfter !== undefined) return Math.min(retryAfter, bounds.retryAfterMsMax) + Math.random() * bounds.msMin;
  return Math.random() * Math.min(bounds.msMax, bounds.msMin * 2 ** Math.min(failures, 30));
}
