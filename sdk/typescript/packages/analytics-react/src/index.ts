/**
 * React provider, hooks and an events table for Tallyhouse.
 *
 * @packageDocumentation
 */
export {
  AnalyticsProvider,
  type AnalyticsProviderProps,
  useAnalyticsClient,
} from "./context.js";
export { EventsTable, type EventsTableProps } from "./events-table.js";
export {
  type EventsResult,
  type QuestionOptions,
  useEvents,
  useMetrics,
  useQuestion,
  useTrackEvent,
} from "./hooks.js";
