/** An invalid field of a request. */
export interface ErrorDetail {
  /** The field's or the parameter's name. */
  field: string;
  /** What is wrong and what is allowed. */
  message: string;
  /** Why the event that the field belongs to was rejected, where a batch is refused because each of its events was. */
  code?: string;
}

/** Facts about an error that not every error has. */
export interface ErrorFacts {
  status?: number;
  retryable?: boolean;
  details?: ErrorDetail[];
  retryAfterMs?: number | undefined;
  cause?: unknown;
}

/**
 * The one class of errors.
 *
 * `code` is the service's own (`VALIDATION_ERROR`, `UNAUTHENTICATED`, `PERMISSION_DENIED`, `NOT_FOUND`, `RATE_LIMITED`,
 * `OVERLOADED`, `UNAVAILABLE`, `INVALID_CURSOR`, …) or one of the SDK's: `NETWORK_ERROR`, `TIMEOUT`, `ABORTED`,
 * `BAD_RESPONSE` (an answer that is not the service's), `INVALID_EVENT`, `STORAGE_UNAVAILABLE`, `TOKEN_UNAVAILABLE`,
 * `WRONG_ORGANIZATION`, `INTERNAL`.
 */
export class AnalyticsError extends Error {
  override readonly name = "AnalyticsError";
  /** A stable code for programs. */
  declare readonly code: string;
  /** The HTTP status; 0 if there was no answer. */
  declare readonly status: number;
  /** Whether the same request may succeed later. */
  declare readonly retryable: boolean;
  /** Every invalid field; often none. */
  declare readonly details: readonly ErrorDetail[];
  /** How long the service requested to wait, in milliseconds; undefined if it did not. */
  declare readonly retryAfterMs: number | undefined;

  constructor(code: string, message: string, { cause, ...facts }: ErrorFacts = {}) {
    super(message, cause === undefined ? undefined : { cause });
    Object.assign(this, { code, status: 0, retryable: false, details: [], ...facts });
  }
}
