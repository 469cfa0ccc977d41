import type { SqlResult } from "@tallyhouse/analytics-sdk/sql";

/** A value as text: structures as JSON. */
export function textOf(value: unknown): string {
  if (value === null || value === undefined) return "";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** What spreadsheets take for the beginning of a formula (OWASP, CSV Injection). */
const FORMULA = /^[=+\-@\t\r]/;
const NUMBER = /^[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?$/i;

/** A cell that a spreadsheet shows as it is: events of others must not run as formulas. */
function cellOf(text: string): string {
  const safe = FORMULA.test(text) && !NUMBER.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/**
 * A result as CSV with a line of names (RFC 4180). Texts that a spreadsheet would run as a formula have an apostrophe
 * before them.
 */
export function csvOf({ columns, rows }: SqlResult): string {
  const lines = [columns.map(({ name }) => name), ...rows.map((row) => row.map(textOf))];
  return lines.map((line) => `${line.map(cellOf).join(",")}\r\n`).join("");
}
