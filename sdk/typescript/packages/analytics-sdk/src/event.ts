import { AnalyticsError } from "./error.js";
import { uuid7, uuid7Time } from "./uuid.js";

/** An event to track. */
export interface EventPayload {
  /** What happened: 1 to 64 letters, digits, `_`, `-`, `.` or `:`. */
  eventType: string;
  /** The user. At most 256 bytes. */
  userId?: string;
  /** Further properties, as an object of JSON values. At most 16 KiB of JSON. */
  properties?: Record<string, unknown>;
  /** When it happened; a number is milliseconds since 1970. Default: when it was tracked. */
  timestamp?: Date | string | number;
  /** The event's identity: it is counted once, however often it is sent. 1 to 128 bytes. Default: a new UUIDv7. */
  eventId?: string;
  /** The campaign. At most 256 bytes. */
  campaignId?: string;
  /** The creative shown or clicked. At most 256 bytes. */
  creativeId?: string;
  /** The system that recorded it. At most 256 bytes. */
  source?: string;
  /** A number by which you order the events of a user: an integer from 0 to 2^53 - 1. */
  seq?: number;
}

/** An event with its final id and time. */
export interface TrackedEvent extends Omit<EventPayload, "timestamp"> {
  eventId: string;
  /** RFC 3339, in UTC. */
  timestamp: string;
}

interface WireEvent {
  event_id: string;
  event_type: string;
  user_id?: string;
  properties?: Record<string, unknown>;
  timestamp: string;
  seq?: number;
  source?: string;
  campaign_id?: string;
  creative_id?: string;
}

function timestampOf(time: Date | string | number | undefined, now: number): string {
  // A text is left to the service, which reads more of RFC 3339 than some browsers do.
  return typeof time === "string" ? time : new Date(time ?? now).toISOString();
}

/**
 * Gives an event its id and its time, and writes it as the JSON that is sent, byte for byte the same each time.
 *
 * @throws AnalyticsError `INVALID_EVENT` for what cannot be written as JSON or has no type.
 */
export function writeEvent(payload: EventPayload, now: number): string {
  try {
    if (typeof payload.eventType !== "string" || payload.eventType === "") throw new TypeError("eventType is required");
    const event: WireEvent = {
      event_id: payload.eventId ?? uuid7(now),
      event_type: payload.eventType,
      user_id: payload.userId,
      properties: payload.properties,
      timestamp: timestampOf(payload.timestamp, now),
      seq: payload.seq,
      source: payload.source,
      campaign_id: payload.campaignId,
      creative_id: payload.creativeId,
    } as WireEvent;
    return JSON.stringify(event);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new AnalyticsError("INVALID_EVENT", `the event cannot be tracked: ${reason}`, { cause });
  }
}

/** The event that a line of JSON stands for; one without members if it is no JSON. */
export function readEvent(json: string): TrackedEvent {
  let wire = {} as WireEvent;
  try {
    wire = JSON.parse(json) ?? wire;
  } catch {
    // It is not what was stored.
  }
  return {
    eventId: wire.event_id,
    eventType: wire.event_type,
    userId: wire.user_id,
    properties: wire.properties,
    timestamp: wire.timestamp,
    seq: wire.seq,
    source: wire.source,
    campaignId: wire.campaign_id,
    creativeId: wire.creative_id,
  } as TrackedEvent;
}

/**
 * The same event with its time moved by `offsetMs`, or undefined when its time is not the SDK's own or the moved one
 * would still be ahead of `serverNow`.
 *
 * Whether the SDK set the time shows in the id: it is a UUIDv7 of that same millisecond. After one move it no longer
 * is, so that an event moves at most once.
 */
export function retime(json: string, offsetMs: number, serverNow: number): string | undefined {
  const wire = JSON.parse(json) as WireEvent;
  const time = Date.parse(wire.timestamp);
  const moved = time + offsetMs;
  if (uuid7Time(wire.event_id) !== time || offsetMs === 0 || moved > serverNow) return undefined;
  return JSON.stringify({ ...wire, timestamp: new Date(moved).toISOString() });
}

const encoder = new TextEncoder();

/** The bytes of a text in UTF-8. */
export function byteLength(text: string): number {
  return encoder.encode(text).length;
}
