/** How fresh an answer is. */
export interface Freshness {
  /** Everything acknowledged at or before this time is counted. RFC 3339; null when the answer does not say. */
  watermark: string | null;
  /** Whether the answer came from the service's memory. */
  isCached: boolean;
}

/** Ends a request. */
export interface RequestOptions {
  signal?: AbortSignal | undefined;
}

/** A day such as `2026-02-10`, an RFC 3339 time, or a Date. */
export type DateLike = string | Date;

/** Which events are listed. All of them when empty. */
export interface EventFilters extends RequestOptions {
  /** The organization. Optional; must be that of the token. */
  orgId?: string | undefined;
  userId?: string | undefined;
  /** One type or up to 20. */
  eventType?: string | readonly string[] | undefined;
  campaignId?: string | undefined;
  /** Events at or after this time, or from this day on. */
  startDate?: DateLike | undefined;
  /** Events before this time, or up to the end of this day. */
  endDate?: DateLike | undefined;
  /** Events of one page: 1 to 500. Default 50. */
  pageSize?: number | undefined;
}

/** A stored event. */
export interface StoredEvent {
  eventId: string;
  userId: string | null;
  eventType: string;
  properties: Record<string, unknown>;
  /** When it happened, RFC 3339, to the millisecond. */
  timestamp: string;
  /** The producer's own number; 0 when none. Above 2^53 - 1 it is rounded. */
  seq: number;
  source: string | null;
  campaignId: string | null;
  creativeId: string | null;
  /** When the service took it, RFC 3339, to the microsecond. */
  receivedAt: string;
  /** The version of its type that it was checked against; 0 when none. */
  schemaVersion: number;
}

/** A page of events, newest first. */
export interface EventPage {
  events: StoredEvent[];
  /** Where the next page begins; null after the last. */
  nextCursor: string | null;
  freshness: Freshness;
}

/** Days, both included. */
export interface DayRange extends RequestOptions {
  /** The organization. Optional; must be that of the token. */
  orgId?: string | undefined;
  /** The first day. Of a Date, its day in UTC. */
  startDate: DateLike;
  /** The last day. */
  endDate: DateLike;
}

/** Which metrics, of which days. */
export interface MetricsParams extends DayRange {
  /**
   * Up to 20 names: `events`, `active_users`, `impressions`, `clicks`, `ctr`, `events:TYPE`, or metrics of your own.
   * Default: the first five.
   */
  metrics?: readonly string[] | undefined;
}

/** One day's value. */
export interface DailyValue {
  /** The day in UTC, as `2026-02-10`. */
  date: string;
  value: number;
}

/** One metric. */
export interface MetricSeries {
  name: string;
  /** Of the whole range: distinct users of all days, a ratio of totals, or a sum. */
  total: number;
  /** Every day of the range, in order. */
  daily: DailyValue[];
}

/** Metrics of every day of a range, and their totals. */
export interface MetricsSummary {
  orgId: string;
  startDate: string;
  endDate: string;
  metrics: MetricSeries[];
  freshness: Freshness;
}

/** How many different users had events on each day. */
export interface DailyActiveUsers {
  orgId: string;
  startDate: string;
  endDate: string;
  daily: DailyValue[];
  freshness: Freshness;
}

/** The window and the length of a ranking. */
export interface RankingParams extends RequestOptions {
  /** The time up to now, as `90m`, `24h` or `7d`. Default `24h`. */
  window?: string | undefined;
  /** Instead of `window`, together with `to`. */
  from?: DateLike | undefined;
  to?: DateLike | undefined;
  /** 1 to 1,000. Default 10. */
  limit?: number | undefined;
}

/** The window of an answer. */
export interface Window {
  from: string;
  /** Not included. */
  to: string;
}

/** One user's count. */
export interface UserCount {
  userId: string;
  events: number;
}

/** The most active users. */
export interface TopUsers extends Window {
  users: UserCount[];
  freshness: Freshness;
}

/** One campaign's counts. */
export interface CampaignCount {
  campaignId: string;
  events: number;
  impressions: number;
  clicks: number;
}

/** The most active campaigns. */
export interface TopCampaigns extends Window {
  campaigns: CampaignCount[];
  freshness: Freshness;
}

/** Which campaign's counts, of which time. */
export interface StatsParams extends RequestOptions {
  campaignId: string;
  from: DateLike;
  to: DateLike;
  /** Default `minute`. At most 50,000 buckets. */
  granularity?: "minute" | "hour" | "day" | undefined;
}

/** One bucket. */
export interface StatsBucket {
  /** Its first moment. */
  ts: string;
  impressions: number;
  clicks: number;
}

/** One campaign's counts over time. */
export interface CampaignStats extends Window {
  campaignId: string;
  granularity: "minute" | "hour" | "day";
  /** Buckets with events, in order of time. */
  series: StatsBucket[];
  freshness: Freshness;
}

/** How the service is. */
export interface Readiness {
  /**
   * `degraded`: events are taken and kept, but not all are counted yet, or something else is wrong. `refusing`: every
   * event is refused.
   */
  status: "ready" | "degraded" | "refusing";
  /** Why the status is not `ready`; the gravest reason first. */
  reasons: { code: string; message: string; refusesEvents: boolean }[];
  clickhouse: "up" | "away";
  /** How much of the embedded ClickHouse's sandbox is in force; absent where ClickHouse is a server of its own. */
  engineSandbox?: "full" | "partial" | "none";
  /** What of the log is not in ClickHouse yet. */
  segments: { waiting: number; parked: number; rows: number };
  /** What the audit of the rollups has found. */
  audit: {
    lastAuditAt: string | null;
    hours: number;
    repaired: number;
    different: number;
    undecided: number;
    lastError: string;
  };
}
