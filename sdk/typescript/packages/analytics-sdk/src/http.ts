import { type ServiceClock, setClock } from "./clock.js";
import { AnalyticsError, type ErrorDetail } from "./error.js";
import { TIMER_MS_MAX } from "./wait.js";

/** Where the service is and how it is asked. */
export interface Endpoint {
  baseUrl: string;
  fetch: typeof fetch;
  timeoutMs: number;
  /** Set by each answer. */
  clock?: ServiceClock;
}

/** One request. */
export interface HttpRequest {
  method: "GET" | "POST";
  /** Path and query. */
  path: string;
  token?: string | undefined;
  headers?: Record<string, string>;
  body?: string;
  keepalive?: boolean;
  signal?: AbortSignal | undefined;
  /** Whether the body of an unsuccessful status is an answer, not an error. */
  isAnswer?: ((json: unknown) => boolean) | undefined;
}

/** An answer that is JSON. */
export interface HttpAnswer {
  status: number;
  headers: Headers;
  json: unknown;
}

const RETRYABLE_STATUS = new Set([408, 425, 429, 500, 502, 503, 504]);

/** The wait that a `Retry-After` names, in milliseconds: RFC 9110, section 10.2.3. */
export function retryAfterMs(header: string | null, now: number): number | undefined {
  if (header === null || header.trim() === "") return undefined;
  const ms = /^\s*\d+\s*$/.test(header) ? Number(header) * 1000 : Date.parse(header) - now;
  return Number.isFinite(ms) ? Math.max(0, ms) : undefined;
}

interface ServiceError {
  code: string;
  message: string;
  details: ErrorDetail[];
}

function serviceError(json: unknown): ServiceError | undefined {
  const error = (json as { error?: Partial<ServiceError> } | null | undefined)?.error;
  if (typeof error?.code !== "string") return undefined;
  const details = Array.isArray(error.details) ? error.details.filter((detail) => detail?.field) : [];
  return { code: error.code, message: String(error.message ?? error.code), details };
}

/** The error that an unsuccessful answer stands for. */
function failure(status: number, headers: Headers, json: unknown): AnalyticsError {
  const wait = retryAfterMs(headers.get("retry-after"), Date.now());
  const error = serviceError(json);
  if (error === undefined) return badResponse(status, wait);
  const retryable = RETRYABLE_STATUS.has(status);
  return new AnalyticsError(error.code, error.message, {
    status,
    retryable,
    retryAfterMs: wait,
    details: error.details,
  });
}

/** The error for an answer that the service does not give. */
export function badResponse(status: number, wait?: number): AnalyticsError {
  const message = `the answer (status ${status}) is not one of the service`;
  return new AnalyticsError("BAD_RESPONSE", message, { status, retryable: true, retryAfterMs: wait });
}

interface Deadline {
  signal: AbortSignal;
  /** Rejects when the signal fires: a `fetch` of the page's own may not heed it. */
  over: Promise<never>;
  /** Must be called once the request is over. */
  end: () => void;
}

/** A signal that fires with the caller's or after `timeoutMs`. */
function deadline(signal: AbortSignal | undefined, timeoutMs: number): Deadline {
  const controller = new AbortController();
  const over = new Promise<never>((_, reject) => {
    controller.signal.addEventListener("abort", () => reject(controller.signal.reason));
  });
  const abort = (): void => controller.abort();
  const timer = setTimeout(abort, Math.min(timeoutMs, TIMER_MS_MAX));
  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort);
  return {
    signal: controller.signal,
    over,
    end: () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    },
  };
}

/**
 * Asks the service.
 *
 * @throws AnalyticsError always, whatever went wrong.
 */
export async function ask(endpoint: Endpoint, request: HttpRequest): Promise<HttpAnswer> {
  const { signal, over, end } = deadline(request.signal, endpoint.timeoutMs);
  const askedAt = Date.now();
  const exchange = async (): Promise<[Response, string]> => {
    const response = await endpoint.fetch(endpoint.baseUrl + request.path, {
      method: request.method,
      headers: {
        accept: "application/json",
        ...(request.token ? { authorization: `Bearer ${request.token}` } : {}),
        ...(request.body === undefined ? {} : { "content-type": "application/json" }),
        ...request.headers,
      },
      body: request.body ?? null,
      keepalive: request.keepalive ?? false,
      credentials: "omit",
      cache: "no-store",
      signal,
    });
    if (endpoint.clock) setClock(endpoint.clock, response.headers.get("date"), askedAt);
    return [response, await response.text()];
  };
  try {
    const [response, text] = await Promise.race([exchange(), over]);
    const json = parse(text);
    if (!response.ok && !request.isAnswer?.(json)) throw failure(response.status, response.headers, json);
    if (json === undefined) throw badResponse(response.status);
    return { status: response.status, headers: response.headers, json };
  } catch (cause) {
    if (cause instanceof AnalyticsError) throw cause;
    if (request.signal?.aborted) throw new AnalyticsError("ABORTED", "the request was aborted", { cause });
    const [code, message] = signal.aborted
      ? ["TIMEOUT", `no answer within ${endpoint.timeoutMs} ms`]
      : ["NETWORK_ERROR", "the service cannot be reached"];
    throw new AnalyticsError(code as string, message as string, { retryable: true, cause });
  } finally {
    end();
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
