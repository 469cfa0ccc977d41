/** A difference that is more than a slow answer and a rounded second, in milliseconds. */
const ERROR_MS_MIN = 30_000;

/** The service's clock, as far as its answers tell. */
export class ServiceClock {
  /** What the device's clock is behind the service's, in milliseconds; 0 until an answer shows that it is wrong. */
  offsetMs = 0;

  /** The time, in milliseconds since 1970. */
  now(): number {
    return Date.now() + this.offsetMs;
  }
}

/**
 * Sets the clock by an answer. Its `Date` says a whole second (RFC 9110, section 6.6.1), somewhere between the request
 * and now: if the device has slept in between, that is a long time, and shows nothing. Answers from another origin hide
 * it unless the service exposes it.
 */
export function setClock(clock: ServiceClock, date: string | null, askedAt: number): void {
  if (date === null) return;
  const halfway = (Date.now() - askedAt) / 2;
  const offset = Date.parse(date) + 500 - askedAt - halfway;
  if (Number.isFinite(offset)) clock.offsetMs = Math.abs(offset) < ERROR_MS_MIN + halfway ? 0 : Math.round(offset);
}
