import type { StoredEvent } from "@tallyhouse/analytics-sdk";
import { useVirtualizer } from "@tanstack/react-virtual";
import { type CSSProperties, type KeyboardEvent, type ReactNode, useEffect, useRef, useState } from "react";
import { type EventsResult, useEvents } from "./hooks.js";

/** Height of a row, in pixels. */
const ROW_PX = 40;
/** Height of the scrolled part, in pixels, unless a class sets another. */
const VIEW_PX = 400;
/** Rows rendered beyond those seen, on each side. */
const OVERSCAN_ROWS = 8;
/** Rows that PageUp and PageDown move by. */
const PAGE_ROWS = 10;
/** Rows before the last at which the next page is fetched. */
const FETCH_AHEAD_ROWS = 5;

/** Properties of {@link EventsTable}. */
export interface EventsTableProps {
  /** The organization. Optional; must be that of the token. */
  orgId?: string | undefined;
  /** Only events of these types. */
  eventType?: string | readonly string[] | undefined;
  /** Events fetched at a time: 1 to 500. Default 50. */
  pageSize?: number | undefined;
  /** A class for the outermost element. Its parts have `data-part` attributes to style them by. */
  className?: string | undefined;
  /** Called when a row is clicked, or Enter or Space is pressed on it. */
  onRowClick?: ((event: StoredEvent) => void) | undefined;
  /** The table's name for screen readers. Default `Events`. */
  label?: string | undefined;
}

const COLUMNS: { title: string; text: (event: StoredEvent) => string }[] = [
  {
    title: "Time",
    text: ({ timestamp }) =>
      String(timestamp ?? "")
        .replace("T", " ")
        .replace("Z", ""),
  },
  { title: "Type", text: (event) => event.eventType },
  { title: "User", text: (event) => event.userId ?? "" },
  { title: "Campaign", text: (event) => event.campaignId ?? "" },
  { title: "Properties", text: ({ properties }) => (isEmpty(properties) ? "" : JSON.stringify(properties)) },
];

const isEmpty = (object: object | null | undefined): boolean => Object.keys(object ?? {}).length === 0;

const GRID: CSSProperties = { display: "grid", gridTemplateColumns: "15em 10em 10em 10em minmax(10em, 1fr)" };
const CELL: CSSProperties = { overflow: "hidden", textOverflow: "ellipsis", whiteSpace: "nowrap", padding: "0 0.5em" };
const HIDDEN: CSSProperties = { position: "absolute", width: 1, height: 1, overflow: "hidden", clipPath: "inset(50%)" };

/**
 * A table of stored events, newest first, that fetches more as it is scrolled and renders only the rows that are seen.
 *
 * One row is in the tab order; arrow keys, PageUp, PageDown, Home and End move among rows. Screen readers are told how
 * many rows there are and when more have come.
 */
export function EventsTable(props: EventsTableProps): ReactNode {
  const { orgId, eventType, pageSize, className, label = "Events" } = props;
  const events = useEvents({ orgId, eventType, pageSize });
  const { data, error, isLoading, fetchNextPage, refetch } = events;
  const tryAgain = (): void => void (data === undefined ? refetch() : fetchNextPage());
  return (
    <section className={className} aria-label={label} aria-busy={isLoading} data-part="events">
      <div role="status" style={HIDDEN}>
        {statusOf(events)}
      </div>
      {isLoading && <p data-part="loading">Loading events…</p>}
      {error !== null && (
        <div role="alert" data-part="error">
          <p>
            Events cannot be loaded: {error.message} ({error.code})
          </p>
          <button type="button" onClick={tryAgain}>
            Try again
          </button>
        </div>
      )}
      {data?.length === 0 && <p data-part="empty">There are no events yet.</p>}
      {data !== undefined && data.length > 0 && (
        <Rows key={JSON.stringify([orgId, eventType])} {...props} label={label} events={events} rows={data} />
      )}
    </section>
  );
}

function statusOf({ data, isLoading, isFetchingNextPage, hasNextPage }: EventsResult): string {
  if (isLoading || isFetchingNextPage) return "Loading events";
  if (data === undefined) return "";
  return `${data.length} events loaded${hasNextPage ? ", more follow" : ", these are all"}`;
}

interface RowsProps extends EventsTableProps {
  events: EventsResult;
  rows: StoredEvent[];
}

function Rows({ label, events, rows, onRowClick }: RowsProps): ReactNode {
  const scrolled = useRef<HTMLDivElement>(null);
  const [chosen, setCurrent] = useState(0);
  // There may be fewer rows than before when they were fetched again.
  const current = Math.min(chosen, rows.length - 1);
  const [isMoving, setIsMoving] = useState(false);
  const virtualizer = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scrolled.current,
    estimateSize: () => ROW_PX,
    overscan: OVERSCAN_ROWS,
    initialRect: { width: 0, height: VIEW_PX },
    getItemKey: (index) => rows[index]?.eventId ?? index,
    // The row in the tab order must be there, also when it is scrolled away.
    rangeExtractor: ({ startIndex, endIndex, overscan, count }) => {
      const first = Math.max(0, startIndex - overscan);
      const last = Math.min(count - 1, endIndex + overscan);
      const seen = Array.from({ length: last - first + 1 }, (_, n) => first + n);
      return current < first || current > last ? [...seen, current].sort((a, b) => a - b) : seen;
    },
  });
  const items = virtualizer.getVirtualItems();

  const lastSeen = virtualizer.range?.endIndex ?? 0;
  const { hasNextPage, isFetchingNextPage, fetchNextPage, error } = events;
  const isNearEnd = lastSeen >= rows.length - FETCH_AHEAD_ROWS;
  useEffect(() => {
    if (isNearEnd && hasNextPage && !isFetchingNextPage && error === null) void fetchNextPage();
  }, [isNearEnd, hasNextPage, isFetchingNextPage, error, fetchNextPage]);

  useEffect(() => {
    if (!isMoving) return;
    scrolled.current?.querySelector<HTMLElement>(`[data-index="${current}"]`)?.focus({ preventScroll: true });
    setIsMoving(false);
  }, [isMoving, current]);

  const moveTo = (index: number): void => {
    const next = Math.max(0, Math.min(rows.length - 1, index));
    virtualizer.scrollToIndex(next);
    setCurrent(next);
    setIsMoving(true);
  };

  const onKeyDown = (event: KeyboardEvent<HTMLElement>): void => {
    const row = rows[current];
    const moves: Record<string, () => void> = {
      ArrowDown: () => moveTo(current + 1),
      ArrowUp: () => moveTo(current - 1),
      PageDown: () => moveTo(current + PAGE_ROWS),
      PageUp: () => moveTo(current - PAGE_ROWS),
      Home: () => moveTo(0),
      End: () => moveTo(rows.length - 1),
      ...(onRowClick && row ? { Enter: () => onRowClick(row), " ": () => onRowClick(row) } : {}),
    };
    const move = moves[event.key];
    if (move === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    move();
  };

  return (
    <div
      role="grid"
      aria-label={label}
      aria-rowcount={hasNextPage ? -1 : rows.length + 1}
      aria-colcount={COLUMNS.length}
      aria-readonly="true"
      data-part="grid"
      style={{ overflowX: "auto" }}
    >
      <div
        role="row"
        tabIndex={-1}
        aria-rowindex={1}
        data-part="header"
        style={{ ...GRID, fontWeight: "bold", minWidth: "55em" }}
      >
        {COLUMNS.map(({ title }) => (
          <span key={title} role="columnheader" style={CELL}>
            {title}
          </span>
        ))}
      </div>
      <div
        ref={scrolled}
        role="rowgroup"
        data-part="body"
        onKeyDown={onKeyDown}
        style={{ overflowY: "auto", maxHeight: VIEW_PX, minWidth: "55em" }}
      >
        <div role="presentation" style={{ height: virtualizer.getTotalSize(), position: "relative" }}>
          {items.map((item) => {
            const event = rows[item.index] as StoredEvent;
            const choose = (): void => {
              setCurrent(item.index);
              onRowClick?.(event);
            };
            const isClickable = onRowClick !== undefined;
            const isCurrent = item.index === current;
            return <Row key={item.key} {...{ item, event, isCurrent, isClickable, choose }} />;
          })}
        </div>
      </div>
    </div>
  );
}

interface RowProps {
  item: { index: number; size: number; start: number };
  event: StoredEvent;
  isCurrent: boolean;
  isClickable: boolean;
  choose: () => void;
}

function Row({ item, event, isCurrent, isClickable, choose }: RowProps): ReactNode {
  const style: CSSProperties = {
    ...GRID,
    position: "absolute",
    top: 0,
    insetInline: 0,
    height: item.size,
    lineHeight: `${item.size}px`,
    transform: `translateY(${item.start}px)`,
    cursor: isClickable ? "pointer" : undefined,
  };
  const { index } = item;
  return (
    <div
      role="row"
      data-part="row"
      data-index={index}
      aria-rowindex={index + 2}
      tabIndex={isCurrent ? 0 : -1}
      onClick={choose}
      style={style}
    >
      {COLUMNS.map(({ title, text }) => (
        <span key={title} role="gridcell" title={text(event)} style={CELL}>
          {text(event)}
        </span>
      ))}
    </div>
  );
}
