"use client";

import type { AnalyticsError } from "@tallyhouse/analytics-sdk";
import type { UseQueryResult } from "@tanstack/react-query";
import { type ReactNode, useId } from "react";

interface PanelProps {
  title: string;
  /** What is chosen for it. */
  controls?: ReactNode;
  className?: string;
  children: ReactNode;
}

/** A titled part of a page. */
export function Panel({ title, controls, className = "", children }: PanelProps): ReactNode {
  const id = useId();
  return (
    <section className={`panel ${className}`} aria-labelledby={id}>
      <div className="panel-head">
        <h2 id={id}>{title}</h2>
        {controls !== undefined && <div className="controls">{controls}</div>}
      </div>
      {children}
    </section>
  );
}

interface AnswerProps<T> {
  answer: UseQueryResult<T, AnalyticsError>;
  /** Whether there is nothing to show. */
  isEmpty?: (data: T) => boolean;
  /** What to do then. */
  empty?: ReactNode;
  /** Whether an older answer is no longer shown when the last question has failed. */
  hidesOlder?: boolean;
  children: (data: T) => ReactNode;
}

/** An answer of the service, or why there is none yet. */
export function Answer<T>({ answer, isEmpty, empty, hidesOlder = false, children }: AnswerProps<T>): ReactNode {
  const { data, error, refetch } = answer;
  if (data === undefined && error === null) return <p role="status">Loading…</p>;
  const isShown = data !== undefined && (error === null || !hidesOlder);
  return (
    <>
      {error !== null && (
        <div role="alert" className="notice bad">
          <p>
            This cannot be loaded: {error.message} ({error.code})
          </p>
          <button type="button" onClick={() => void refetch()}>
            Try again
          </button>
        </div>
      )}
      {isShown && (isEmpty?.(data) ? <div className="empty">{empty}</div> : children(data))}
    </>
  );
}

interface ChoiceProps<T extends string> {
  label: string;
  value: T;
  options: readonly { value: T; title: string }[];
  onChange: (value: T) => void;
}

/** One of a few values. */
export function Choice<T extends string>({ label, value, options, onChange }: ChoiceProps<T>): ReactNode {
  const id = useId();
  return (
    <span className="field">
      <label htmlFor={id}>{label}</label>
      <select id={id} value={value} onChange={(event) => onChange(event.target.value as T)}>
        {options.map(({ value, title }) => (
          <option key={value} value={value}>
            {title}
          </option>
        ))}
      </select>
    </span>
  );
}
