import { AnalyticsClient } from "@tallyhouse/analytics-sdk";
import { vi } from "vitest";

export const event = (n: number) => ({
  event_id: `e-${n}`,
  user_id: n % 2 ? "ann" : null,
  event_type: "click",
  properties: n % 3 ? { n } : {},
  timestamp: "2026-11-27T12:00:00.000Z",
  seq: 0,
  source: null,
  campaign_id: "camp",
  creative_id: null,
  received_at: "2026-11-27T12:00:00.000000Z",
  schema_version: 0,
});

type Answer = (url: URL, init?: RequestInit) => Response | Promise<Response>;

export const json = (status: number, body: unknown): Response => new Response(JSON.stringify(body), { status });

/** Pages of a list of `count` events. */
export const pagesOf = (count: number): Answer => {
  return (url) => {
    const from = Number(url.searchParams.get("cursor") ?? 0);
    const limit = Number(url.searchParams.get("limit") ?? 50);
    const events = Array.from({ length: Math.min(limit, count - from) }, (_, n) => event(from + n));
    return json(200, { events, next_cursor: from + limit < count ? String(from + limit) : null });
  };
};

/** Settings of a client whose service answers so, and the calls that it gets. */
export function answering(answer: Answer) {
  const calls = vi.fn<Answer>(answer);
  const fetch: typeof globalThis.fetch = async (input, init) => calls(new URL(String(input)), init);
  const config = { baseUrl: "https://x.example", fetch, storage: "memory", readRetriesMax: 0 } as const;
  return { config, calls, client: () => new AnalyticsClient({ ...config, autoStart: false }) };
}
