import { AnalyticsError } from "./error.js";

/** The longest delay of a timer, in milliseconds: a longer one would fire at once. */
export const TIMER_MS_MAX = 2 ** 31 - 1;

/** How long to wait. */
export interface WaitOptions {
  /** Longest wait, in milliseconds. Default and most: 2^31 - 1, which is 24 days. */
  timeoutMs?: number | undefined;
  /** Ends the wait. */
  signal?: AbortSignal | undefined;
}

/**
 * Waits within limits. Its timer keeps a process of Node.js alive while it waits.
 *
 * @throws AnalyticsError `TIMEOUT` or `ABORTED` when a limit ends the wait; what is waited for goes on.
 */
export async function limited<T>(waited: Promise<T>, { timeoutMs = TIMER_MS_MAX, signal }: WaitOptions): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let onAbort = (): void => {};
  const limit = new Promise<never>((_, reject) => {
    const end = (code: string): void => reject(new AnalyticsError(code, "not everything is answered yet"));
    timer = setTimeout(end, Math.min(timeoutMs, TIMER_MS_MAX), "TIMEOUT");
    onAbort = () => end("ABORTED");
    if (signal?.aborted) onAbort();
    signal?.addEventListener("abort", onAbort);
  });
  try {
    return await Promise.race([waited, limit]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}

/** Waits so many milliseconds, or until the signal fires. */
export function delay(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener("abort", end);
    if (signal?.aborted) end();
  });
}
