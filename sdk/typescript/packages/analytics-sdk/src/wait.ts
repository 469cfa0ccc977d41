import { AnalyticsError } from "./error.js";

/** How long to wait. */
export interface WaitOptions {
  /** Longest wait, in milliseconds. Default: as long as it takes. */
  timeoutMs?: number | undefined;
  /** Ends the wait. */
  signal?: AbortSignal | undefined;
}

/**
 * Waits within limits.
 *
 * @throws AnalyticsError `TIMEOUT` or `ABORTED` when a limit ends the wait; what is waited for goes on.
 */
export async function limited(waited: Promise<void>, { timeoutMs, signal }: WaitOptions): Promise<void> {
  if (timeoutMs === undefined && signal === undefined) return waited;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let onAbort: (() => void) | undefined;
  const limit = new Promise<void>((_, reject) => {
    const end = (code: string): void => reject(new AnalyticsError(code, "not everything is answered yet"));
    if (timeoutMs !== undefined) timer = setTimeout(end, timeoutMs, "TIMEOUT");
    onAbort = () => end("ABORTED");
    if (signal?.aborted) onAbort();
    signal?.addEventListener("abort", onAbort);
  });
  try {
    await Promise.race([waited, limit]);
  } finally {
    clearTimeout(timer);
    if (onAbort) signal?.removeEventListener("abort", onAbort);
  }
}

/** Waits so many milliseconds, or until the signal fires. */
export function delay(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
