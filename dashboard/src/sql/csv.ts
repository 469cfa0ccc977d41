import type { SqlResult } from "@tallyhouse/analytics-sdk/sql";

/** A value as text: structures as JSON. */
export function textOf(value: unknown): string {
  if (value === null || value === undefined) return "";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A result as CSV with a line of names (RFC 4180). */
export function csvOf({ columns, rows }: SqlResult): string {
  const quoted = (text: string) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = [columns.map(({ name }) => name), ...rows.map((row) => row.map(textOf))];
  return lines.map((line) => `${line.map(quoted).join(",")}\r\n`).join("");
}
