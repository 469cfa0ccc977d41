"use client";

import { EventsTable, useEvents } from "@tallyhouse/analytics-react";
import type { StoredEvent } from "@tallyhouse/analytics-sdk";
import { type FormEvent, type ReactNode, useEffect, useId, useRef, useState } from "react";
import { Panel } from "./panel";

/** Events fetched at a time. */
const PAGE_SIZE = 50;
/** How often the first events are looked for, in milliseconds. What one reads does not move by itself. */
const FIRST_MS = 5_000;

/** Stored events, newest first, as far as one scrolls. */
export function Events(): ReactNode {
  const field = useId();
  const list = useId();
  const [typed, setTyped] = useState("");
  const [eventType, setEventType] = useState<string>();
  const [shown, setShown] = useState<StoredEvent>();
  // The table's own question, asked once for both.
  const filters = { eventType, pageSize: PAGE_SIZE };
  const [isEmpty, setIsEmpty] = useState(false);
  const { data: listed, refetch } = useEvents(filters, isEmpty ? { refetchIntervalMs: FIRST_MS } : {});
  useEffect(() => setIsEmpty(listed?.length === 0), [listed]);
  const { data } = useEvents({ pageSize: PAGE_SIZE });
  const types = [...new Set(data?.map((event) => event.eventType))].sort();
  const filter = (event: FormEvent) => {
    event.preventDefault();
    setEventType(typed.trim() || undefined);
  };
  const controls = (
    <form className="controls" onSubmit={filter}>
      <span className="field">
        <label htmlFor={field}>Type</label>
        <input
          id={field}
          list={list}
          placeholder="all"
          value={typed}
          onChange={(event) => setTyped(event.target.value)}
        />
        <datalist id={list}>
          {types.map((type) => (
            <option key={type} value={type} />
          ))}
        </datalist>
      </span>
      <button type="submit">Filter</button>
      <button type="button" onClick={() => void refetch()}>
        Refresh
      </button>
    </form>
  );
  return (
    <Panel title="Recent events" controls={controls}>
      <EventsTable
        key={eventType}
        className="events"
        label="Stored events"
        eventType={eventType}
        pageSize={PAGE_SIZE}
        onRowClick={setShown}
      />
      {shown !== undefined && <EventDetails event={shown} onClose={() => setShown(undefined)} />}
    </Panel>
  );
}

function EventDetails({ event, onClose }: { event: StoredEvent; onClose: () => void }): ReactNode {
  const title = useId();
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} aria-labelledby={title} onClose={onClose}>
      <h2 id={title}>Event {event.eventId}</h2>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard */}
      <pre tabIndex={0}>{JSON.stringify(event, null, 2)}</pre>
      <form method="dialog">
        <button type="submit">Close</button>
      </form>
    </dialog>
  );
}
