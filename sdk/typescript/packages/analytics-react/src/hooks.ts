import type {
  AnalyticsError,
  DateLike,
  EventFilters,
  EventPage,
  EventPayload,
  MetricsParams,
  MetricsSummary,
  StoredEvent,
} from "@tallyhouse/analytics-sdk";
import { type UseQueryResult, useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useCallback, useMemo } from "react";
import { useAnalytics, useAnalyticsClient } from "./context.js";

/** How long an answer is shown without a new query, in milliseconds. */
const FRESH_MS = 30_000;

/** Tracks an event; see `AnalyticsClient.trackEvent`. The function stays the same over renders. */
export function useTrackEvent(): (event: EventPayload) => Promise<void> {
  const client = useAnalyticsClient();
  return useCallback((event: EventPayload) => client.trackEvent(event), [client]);
}

/** Options of a query. */
export interface QuestionOptions {
  /** False: the query is not sent. Default true. */
  enabled?: boolean;
  /** Interval of repeated queries, in milliseconds. Default: only when the page is shown again. */
  refetchIntervalMs?: number;
}

/** Stored events, as far as they are loaded. */
export interface EventsResult {
  /** The events loaded so far, newest first. Undefined until the first page is loaded. */
  data: StoredEvent[] | undefined;
  error: AnalyticsError | null;
  /** Whether the first page is being loaded. */
  isLoading: boolean;
  isFetchingNextPage: boolean;
  hasNextPage: boolean;
  /** Everything acknowledged at or before this time is in the first page; null when unknown. */
  watermark: string | null;
  fetchNextPage: () => Promise<unknown>;
  /** Repeats the query, also after an error. */
  refetch: () => Promise<unknown>;
}

/** Lists stored events, newest first, a page at a time. */
export function useEvents(filters: Omit<EventFilters, "signal"> = {}, options: QuestionOptions = {}): EventsResult {
  const { client, clientId, queries } = useAnalytics();
  const query = useInfiniteQuery<EventPage, AnalyticsError, { pages: EventPage[] }, unknown[], string | null>(
    {
      queryKey: ["tallyhouse", "events", filters, clientId],
      queryFn: ({ pageParam, signal }) => client.getEventsPage({ ...filters, signal }, pageParam),
      initialPageParam: null,
      getNextPageParam: (page) => page.nextCursor,
      ...settingsOf(options),
    },
    queries,
  );
  const { pages } = query.data ?? {};
  const data = useMemo(() => pages?.flatMap((page) => page.events), [pages]);
  return {
    data,
    error: query.error,
    isLoading: query.isLoading,
    isFetchingNextPage: query.isFetchingNextPage,
    hasNextPage: query.hasNextPage,
    watermark: pages?.[0]?.freshness.watermark ?? null,
    fetchNextPage: query.fetchNextPage,
    refetch: query.refetch,
  };
}

/**
 * Metrics by day, and their totals. Cached: equal queries of all components are sent once. Dates of the same day are
 * equal, so that `new Date()` may be written where the component is rendered.
 */
export function useMetrics(
  params: Omit<MetricsParams, "signal">,
  options: QuestionOptions = {},
): UseQueryResult<MetricsSummary, AnalyticsError> {
  const days = { ...params, startDate: dayOf(params.startDate), endDate: dayOf(params.endDate) };
  return useQuestion(["metrics", days], (client, signal) => client.getMetricsSummary({ ...days, signal }), options);
}

function dayOf(time: DateLike): DateLike {
  return time instanceof Date ? String(time.toJSON()).slice(0, 10) : time;
}

/** Any other query of the client, cached under this key. */
export function useQuestion<T>(
  key: readonly unknown[],
  ask: (client: ReturnType<typeof useAnalyticsClient>, signal: AbortSignal) => Promise<T>,
  options: QuestionOptions = {},
): UseQueryResult<T, AnalyticsError> {
  const { client, clientId, queries } = useAnalytics();
  return useQuery<T, AnalyticsError>(
    {
      queryKey: ["tallyhouse", ...key, clientId],
      queryFn: ({ signal }) => ask(client, signal),
      ...settingsOf(options),
    },
    queries,
  );
}

function settingsOf({ enabled = true, refetchIntervalMs }: QuestionOptions) {
  // The client has asked again already, where that helps.
  return { enabled, retry: false, staleTime: FRESH_MS, refetchInterval: refetchIntervalMs ?? false } as const;
}
