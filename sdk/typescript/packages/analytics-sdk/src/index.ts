/**
 * Sends events to Tallyhouse so that each counts exactly once, and reads events and counts.
 *
 * @packageDocumentation
 */
export { AnalyticsClient, type AnalyticsClientOptions } from "./client.js";
export { AnalyticsError, type ErrorDetail } from "./error.js";
export type { EventPayload, TrackedEvent } from "./event.js";
export type * from "./read/types.js";
export type { StoredEvent as Event } from "./read/types.js";
export type {
  CloseTransport,
  Consent,
  DropReason,
  DropReport,
  EventFault,
  TrackerOptions,
  VerdictReport,
} from "./settings.js";
export type { ApiKey } from "./token.js";
export { EventTracker } from "./tracker.js";
export { uuid7 } from "./uuid.js";
export type { WaitOptions } from "./wait.js";
