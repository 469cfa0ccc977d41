/**
 * Analysts' SQL, through the service's own origin: read-only statements, as one of the service's analysts.
 *
 * A separate entry point, since few pages need it. The service refuses statements from pages of other origins.
 *
 * @packageDocumentation
 */
import { ask, badResponse } from "./http.js";
import { pathWith } from "./read/request.js";

/** Where the service is, and as which analyst it is asked. */
export interface SqlOptions {
  /** Such as `https://analytics.example`. Empty: the page's own origin. */
  baseUrl: string;
  /** The analyst, as `tallyhouse analyst` prints it. Default `analyst`. */
  user?: string;
  /** The analyst's password. Without authentication, the service needs none. */
  password?: string | undefined;
  /** Longest wait for an answer, in milliseconds. Default 90,000. */
  timeoutMs?: number;
  /** Replaces `fetch`. */
  fetch?: typeof fetch;
}

/** Settings of one statement. */
export interface StatementOptions {
  /** Values of the statement's parameters, which stand in it as `{name:Type}`. */
  params?: Readonly<Record<string, string | number>>;
  signal?: AbortSignal | undefined;
}

/** A column of a result. */
export interface SqlColumn {
  name: string;
  /** ClickHouse's type, such as `UInt64` or `Nullable(String)`. */
  type: string;
}

/** What a statement has answered. */
export interface SqlResult {
  columns: SqlColumn[];
  /** Values in the order of the columns. An integer above 2^53 - 1 is a text, so that it is exact. */
  rows: unknown[][];
}

/** Types whose values are written as text, since JSON's numbers may be rounded. */
const WIDE = /U?Int(?:64|128|256)/;
/** Types whose texts may look like numbers, and the place where they do not matter. */
const TEXT = /String|JSON|Dynamic|Variant/;
const TEXT_KEY = /Map\((?:LowCardinality\()?String\)?,/g;

/** A value of such a type, or a list or map of them, with numbers where they are exact. */
function narrowed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(narrowed);
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, narrowed(item)]));
  }
  const number = Number(value);
  return typeof value === "string" && Number.isSafeInteger(number) && String(number) === value ? number : value;
}

/** Runs statements as one analyst. */
export interface SqlClient {
  /** Runs a statement. Rejects with an AnalyticsError; what is wrong with the statement is in its `details`. */
  query(statement: string, options?: StatementOptions): Promise<SqlResult>;
}

/** A client for the statements of one analyst. */
export function createSqlClient(options: SqlOptions): SqlClient {
  const endpoint = {
    baseUrl: options.baseUrl.replace(/\/+$/, ""),
    fetch: options.fetch ?? ((input: RequestInfo | URL, init?: RequestInit) => globalThis.fetch(input, init)),
    timeoutMs: options.timeoutMs ?? 90_000,
  };
  const headers = {
    "content-type": "text/plain; charset=utf-8",
    "x-clickhouse-user": options.user ?? "analyst",
    "x-clickhouse-key": options.password ?? "",
  };
  return {
    async query(statement, { params = {}, signal } = {}) {
      const named = Object.entries(params).map(([name, value]) => [`param_${name}`, value] as const);
      const format = { default_format: "JSONCompact", output_format_json_quote_64bit_integers: 1 };
      const path = pathWith("/api/v1/sql", { ...format, ...Object.fromEntries(named) });
      const answer = await ask(endpoint, { method: "POST", path, headers, body: statement, signal });
      const { meta, data } = (answer.json ?? {}) as { meta?: SqlColumn[]; data?: unknown[][] };
      if (!Array.isArray(meta) || !Array.isArray(data)) throw badResponse(answer.status);
      const isWide = meta.map(({ type }) => WIDE.test(type) && !TEXT.test(type.replace(TEXT_KEY, "")));
      const rows = data.map((row) => row.map((value, n) => (isWide[n] ? narrowed(value) : value)));
      return { columns: meta, rows };
    },
  };
}
