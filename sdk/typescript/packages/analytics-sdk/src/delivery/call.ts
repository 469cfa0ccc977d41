/** Where events are sent. */
export const EVENTS_PATH = "/api/v1/events";
/** Bytes that all requests of a page that may outlive it can have together, by the Fetch standard. */
export const KEEPALIVE_BYTES_MAX = 65_536;

/** The body of a call with these events. */
export function bodyOf(events: string[]): string {
  return `{"events":[${events.join(",")}]}`;
}
