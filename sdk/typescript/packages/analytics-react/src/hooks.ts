import type {
  AnalyticsError,
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

/** How long an answer is shown without asking again, in milliseconds. */
const FRESH_MS = 30_000;

/** Tracks an event; see `AnalyticsClient.trackEvent`. The function stays the same over renders. */
export function useTrackEvent(): (event: EventPayload) => Promise<void> {
  const client = useAnalyticsClient();
  return useCallback((event: EventPayload) => client.trackEvent(event), [client]);
}

/** When a question is asked. */
export interface QuestionOptions {
  /** False: it is not asked. Default true. */
  enabled?: boolean;
  /** Asks again every so many milliseconds. Default: only when somebody looks again. */
  refetchIntervalMs?: number;
}

/** Stored events, as far as they are loaded. */
export interface EventsResult {
  /** Those loaded so far, newest first. Undefined until the first page is there. */
  data: StoredEvent[] | undefined;
  error: AnalyticsError | null;
  /** Whether the first page is on its way. */
  isLoading: boolean;
  isFetchingNextPage: boolean;
  hasNextPage: boolean;
  /** Everything acknowledged at or before this time is in the first page; null when unknown. */
  watermark: string | null;
  fetchNextPage: () => Promise<unknown>;
  /** Asks again, also after an error. */
  refetch: () => Promise<unknown>;
}

/** Lists stored events, newest first, a page at a time. */
export function useEvents(filters: Omit<EventFilters, "signal"> = {}, options: QuestionOptions = {}): EventsResult {
  const { client, queries } = useAnalytics();
  const query = useInfiniteQuery<EventPage, AnalyticsError, { pages: EventPage[] }, unknown[], string | null>(
    {
      queryKey: ["tallyhouse", "events", filters],
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

/** Metrics by day, and their totals. Cached: the same question is asked once for all components. */
export function useMetrics(
  params: Omit<MetricsParams, "signal">,
  options: QuestionOptions = {},
): UseQueryResult<MetricsSummary, AnalyticsError> {
  return useQuestion(["metrics", params], (client, signal) => client.getMetricsSummary({ ...params, signal }), options);
}

/** Any other question of the client, cached under this key. */
export function useQuestion<T>(
  key: readonly unknown[],
  ask: (client: ReturnType<typeof useAnalyticsClient>, signal: AbortSignal) => Promise<T>,
  options: QuestionOptions = {},
): UseQueryResult<T, AnalyticsError> {
  const { client, queries } = useAnalytics();
  return useQuery<T, AnalyticsError>(
    {
      queryKey: ["tallyhouse", ...key],
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
