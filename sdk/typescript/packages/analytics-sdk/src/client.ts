import { badResponse, type HttpRequest } from "./http.js";
import { bodyWith, camelCased, freshnessOf, pathWith, type QueryValue, read } from "./read/request.js";
import type {
  CampaignStats,
  DailyActiveUsers,
  DateLike,
  DayRange,
  EventFilters,
  EventPage,
  MetricsParams,
  MetricsSummary,
  RankingParams,
  Readiness,
  RequestOptions,
  StatsParams,
  StoredEvent,
  TopCampaigns,
  TopUsers,
} from "./read/types.js";
import type { TrackerOptions } from "./settings.js";
import { EventTracker } from "./tracker.js";

/** Settings of an {@link AnalyticsClient}. */
export interface AnalyticsClientOptions extends TrackerOptions {
  /** How often a query that failed temporarily is retried. Default 2. */
  readRetriesMax?: number;
  /** Longest pause before a retry, in milliseconds. Default 5,000. */
  readBackoffMsMax?: number;
}

/**
 * Sends events, and reads events and counts.
 *
 * Queries require a token with the scope `read`. They reject with an AnalyticsError.
 */
export class AnalyticsClient extends EventTracker {
  readonly #readRetriesMax: number;
  readonly #readBackoffMsMax: number;

  constructor(options: AnalyticsClientOptions) {
    super(options);
    this.#readRetriesMax = options.readRetriesMax ?? 2;
    this.#readBackoffMsMax = options.readBackoffMsMax ?? 5_000;
  }

  /**
   * Iterates over stored events, newest first: each that existed at the start once. The next page is fetched when the
   * consumer requests it; a consumer that stops, or `signal`, ends the iteration.
   */
  async *getEvents(filters: EventFilters = {}): AsyncGenerator<StoredEvent, void, void> {
    let cursor: string | null = null;
    do {
      const { events, nextCursor }: EventPage = await this.getEventsPage(filters, cursor);
      yield* events;
      // It would never end.
      if (nextCursor !== null && nextCursor === cursor) throw badResponse(200);
      cursor = nextCursor;
    } while (cursor !== null);
  }

  /** One page of stored events, newest first. A cursor belongs to its filters. */
  async getEventsPage(filters: EventFilters = {}, cursor: string | null = null): Promise<EventPage> {
    const { orgId, userId, eventType, campaignId, startDate, endDate, pageSize, signal } = filters;
    const query = {
      org_id: orgId,
      user_id: userId,
      event_type: eventType,
      campaign_id: campaignId,
      start_date: startDate,
      end_date: endDate,
      limit: pageSize,
      cursor: cursor ?? undefined,
    };
    const page = await this.#list<EventPage>("/api/v1/events", query, "events", signal);
    return { ...page, nextCursor: page.nextCursor || null };
  }

  /** One stored event. Rejects with `NOT_FOUND` if there is no event with this id. */
  async getEvent(eventId: string, { signal }: RequestOptions = {}): Promise<StoredEvent> {
    const answer = await this.#read(`/api/v1/events/${encodeURIComponent(eventId)}`, {}, signal);
    return camelCased(answer.json) as StoredEvent;
  }

  /** Metrics of every day of a range, and their totals. */
  async getMetricsSummary(params: MetricsParams): Promise<MetricsSummary> {
    const query = { ...rangeOf(params), metrics: params.metrics };
    return this.#list("/api/v1/metrics/summary", query, "metrics", params.signal);
  }

  /** The number of distinct users with events on each day. Exact. */
  async getDailyActiveUsers(params: DayRange): Promise<DailyActiveUsers> {
    return this.#list("/api/v1/metrics/dau", rangeOf(params), "daily", params.signal);
  }

  /** The users with the most events. */
  async getTopUsers(params: RankingParams = {}): Promise<TopUsers> {
    return this.#list("/api/v1/users/top", rankingOf(params), "users", params.signal);
  }

  /** The campaigns with the most events. */
  async getTopCampaigns(params: RankingParams = {}): Promise<TopCampaigns> {
    return this.#list("/api/v1/campaigns/top", rankingOf(params), "campaigns", params.signal);
  }

  /** Impressions and clicks of one campaign over time. */
  async getStats({ campaignId, from, to, granularity, signal }: StatsParams): Promise<CampaignStats> {
    const query = { campaign_id: campaignId, from: timeOf(from), to: timeOf(to), granularity };
    return this.#list("/stats", query, "series", signal);
  }

  /** The state of the service, also while it refuses every event. */
  async getReadiness({ signal }: RequestOptions = {}): Promise<Readiness> {
    const answer = await this.#read("/readyz", {}, signal, isReadiness);
    if (!isReadiness(answer.json)) throw badResponse(answer.status);
    return camelCased(answer.json) as Readiness;
  }

  async #list<T>(path: string, query: Record<string, QueryValue>, list: string, signal?: AbortSignal): Promise<T> {
    const answer = await this.#read(path, query, signal);
    return { ...(bodyWith(answer, list) as T), freshness: freshnessOf(answer) };
  }

  #read(path: string, query: Record<string, QueryValue>, signal?: AbortSignal, isAnswer?: HttpRequest["isAnswer"]) {
    const { backoffMsMin } = this.settings;
    const retries = { retriesMax: this.#readRetriesMax, backoffMsMin, backoffMsMax: this.#readBackoffMsMax };
    return read(this.endpoint, () => this.token(), { path: pathWith(path, query), signal, isAnswer }, retries);
  }
}

function isReadiness(json: unknown): boolean {
  const { status, reasons } = (json ?? {}) as Partial<Readiness>;
  return typeof status === "string" && Array.isArray(reasons);
}

const rangeOf = ({ orgId, startDate, endDate }: DayRange): Record<string, QueryValue> => {
  return { org_id: orgId, start_date: dayOf(startDate), end_date: dayOf(endDate) };
};

/** The day of a Date, in UTC: as a time, the last day of a range would not be included. */
function dayOf(time: DateLike): DateLike {
  return time instanceof Date ? String(time.toJSON()).slice(0, 10) : time;
}

const rankingOf = ({ window, from, to, limit }: RankingParams): Record<string, QueryValue> => {
  return { window, from: timeOf(from), to: timeOf(to), limit };
};

/** A time, also of a day. */
function timeOf(time: DateLike | undefined): DateLike | undefined {
  return typeof time === "string" && /^\d{4}-\d\d-\d\d$/.test(time) ? `${time}T00:00:00Z` : time;
}
