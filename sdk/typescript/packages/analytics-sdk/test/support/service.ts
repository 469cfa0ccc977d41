/** A double of the service: it counts each event id once, and can be made to fail in the ways services do. */
export type Fault =
  /** Taken, but the answer is lost. */
  | "lost-answer"
  /** Never arrives. */
  | "unreachable"
  /** Any answer. */
  | (() => Response);

export interface Call {
  url: string;
  key: string | null;
  token: string | null;
  keepalive: boolean;
  body: string;
  ids: string[];
}

interface WireEvent {
  event_id: string;
  event_type: string;
  timestamp: string;
}

const MS_AHEAD_MAX = 5 * 60_000;

export class FakeService {
  readonly calls: Call[] = [];
  /** Every event that was counted, by id. */
  readonly counted = new Map<string, string>();
  /** What happens to the next calls, in order. */
  readonly faults: Fault[] = [];
  /** What happens to every call that has no fault of its own. */
  always: Fault | undefined;
  /** The service's clock against this one, in milliseconds. */
  clockMs = 0;
  /** Event types that make a whole call unreadable. */
  unreadable: string | undefined;

  readonly fetch: typeof fetch = async (input, init) => {
    const body = String(init?.body ?? "");
    const headers = new Headers(init?.headers);
    const { events } = JSON.parse(body) as { events: WireEvent[] };
    this.calls.push({
      url: String(input),
      key: headers.get("idempotency-key"),
      token: headers.get("authorization"),
      keepalive: init?.keepalive === true,
      body,
      ids: events.map((event) => event.event_id),
    });
    const fault = this.faults.shift() ?? this.always;
    init?.signal?.throwIfAborted();
    if (fault === "unreachable") throw new TypeError("fetch failed");
    if (typeof fault === "function") return fault();
    const answer = this.#take(events);
    if (fault === "lost-answer") throw new TypeError("connection reset");
    return answer;
  };

  /** How often each id was sent. */
  get sent(): number {
    return this.calls.reduce((sum, call) => sum + call.ids.length, 0);
  }

  #take(events: WireEvent[]): Response {
    if (events.some((event) => event.event_type === this.unreadable)) return refusal(400, "MALFORMED_JSON");
    const now = Date.now() + this.clockMs;
    let accepted = 0;
    let duplicates = 0;
    const rejected: object[] = [];
    for (const [index, event] of events.entries()) {
      const json = JSON.stringify(event);
      const known = this.counted.get(event.event_id);
      if (Date.parse(event.timestamp) > now + MS_AHEAD_MAX) {
        const message = "must not be more than 5 minutes ahead of now";
        rejected.push({ index, code: "IN_FUTURE", field: "timestamp", message });
      } else if (event.event_type === "bad type") {
        rejected.push({ index, code: "INVALID", field: "event_type", message: "must be a token" });
      } else if (known === undefined) {
        this.counted.set(event.event_id, json);
        accepted++;
      } else if (known === json) {
        duplicates++;
      } else {
        const message = "is already there with another payload, which stays";
        rejected.push({ index, code: "CONFLICT", field: "event_id", message });
      }
    }
    if (accepted + duplicates === 0) {
      const details = (rejected as { index: number; code: string; field: string; message: string }[]).map((fault) => {
        return { field: `events[${fault.index}].${fault.field}`, message: fault.message, code: fault.code };
      });
      return refusal(422, "VALIDATION_ERROR", { details, clockMs: this.clockMs });
    }
    return json(202, { accepted, duplicates, rejected }, { date: this.#date() });
  }

  #date(): string {
    return new Date(Date.now() + this.clockMs).toUTCString();
  }
}

export function json(status: number, body: unknown, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body), { status, headers: { "content-type": "application/json", ...headers } });
}

interface RefusalFacts {
  details?: object[];
  headers?: Record<string, string>;
  clockMs?: number;
}

/** An error as the service answers it. */
export function refusal(status: number, code: string, { details = [], headers = {}, clockMs = 0 }: RefusalFacts = {}) {
  const date = new Date(Date.now() + clockMs).toUTCString();
  return json(status, { error: { code, message: code.toLowerCase(), details } }, { date, ...headers });
}

/** An answer as a captive portal gives it. */
export function html(status = 200): Response {
  return new Response("<html><body>Please sign in</body></html>", { status, headers: { "content-type": "text/html" } });
}
