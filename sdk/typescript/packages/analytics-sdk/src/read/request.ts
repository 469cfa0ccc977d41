import { pauseMs } from "../delivery/backoff.js";
import type { AnalyticsError } from "../error.js";
import { ask, badResponse, type Endpoint, type HttpAnswer, type HttpRequest } from "../http.js";
import { delay } from "../wait.js";
import type { DateLike, Freshness } from "./types.js";

/** A value of a query's parameter. */
export type QueryValue = DateLike | number | readonly string[] | null | undefined;

/** How often a question that failed is asked again, and how long that is waited for. */
export interface ReadRetries {
  retriesMax: number;
  backoffMsMin: number;
  backoffMsMax: number;
}

/** A path with its parameters; those that are undefined or null are left out. */
export function pathWith(path: string, params: Record<string, QueryValue>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value == null) continue;
    // What is no date is left to the service, which says what is wrong with it.
    for (const item of Array.isArray(value) ? value : [value instanceof Date ? value.toJSON() : value]) {
      query.append(name, String(item));
    }
  }
  const text = query.toString();
  return text === "" ? path : `${path}?${text}`;
}

/**
 * Asks a question, and again where that may help.
 *
 * @throws AnalyticsError always, whatever went wrong.
 */
export async function read(
  endpoint: Endpoint,
  token: () => Promise<string | undefined>,
  question: Pick<HttpRequest, "path" | "signal" | "isAnswer">,
  retries: ReadRetries,
): Promise<HttpAnswer> {
  for (let failures = 0; ; failures++) {
    try {
      return await ask(endpoint, { ...question, method: "GET", token: await token() });
    } catch (cause) {
      const error = cause as AnalyticsError;
      if (!error.retryable || failures >= retries.retriesMax) throw error;
      // A longer wait is for the caller to decide on.
      if ((error.retryAfterMs ?? 0) > retries.backoffMsMax) throw error;
      const { backoffMsMin: msMin, backoffMsMax: msMax } = retries;
      await delay(pauseMs(failures, error.retryAfterMs, { msMin, msMax, retryAfterMsMax: msMax }), question.signal);
    }
  }
}

/** How fresh an answer is. */
export function freshnessOf({ headers }: HttpAnswer): Freshness {
  return { watermark: headers.get("x-watermark"), isCached: headers.get("x-cache") === "HIT" };
}

type Json = { [name: string]: unknown };

const camel = (name: string): string => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

/** An object with its own names, and those of the objects it lists, in camel case. What is in `properties` stays. */
export function camelCased(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(camelCased);
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value as Json);
  return Object.fromEntries(
    entries.map(([name, item]) => [camel(name), name === "properties" ? item : camelCased(item)]),
  );
}

/**
 * The body of an answer, which must have this list.
 *
 * @throws AnalyticsError `BAD_RESPONSE` for another body.
 */
export function bodyWith(answer: HttpAnswer, list: string): unknown {
  const body = answer.json as Json | null;
  if (typeof body !== "object" || body === null || !Array.isArray(body[list])) throw badResponse(answer.status);
  return camelCased(body);
}
