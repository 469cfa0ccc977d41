"use client";

import type { SqlResult } from "@tallyhouse/analytics-sdk/sql";
import { type ReactNode, useMemo } from "react";
import { TimeChart } from "../chart/time-chart";
import { formatNumber } from "../format";
import { chartableOf } from "./chartable";
import { csvOf, textOf } from "./csv";

/** Rows that are shown; the file has all. */
const ROWS_SHOWN_MAX = 500;

interface ResultProps {
  result: SqlResult;
  /** What the file is called. */
  name: string;
}

/** A result as a chart, where it has times and numbers, as a table and as a file. */
export function Result({ result, name }: ResultProps): ReactNode {
  const { columns, rows } = result;
  const chart = useMemo(() => chartableOf(result), [result]);
  const download = () => {
    const url = URL.createObjectURL(new Blob([csvOf(result)], { type: "text/csv;charset=utf-8" }));
    const link = document.createElement("a");
    link.href = url;
    link.download = `${name.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}.csv`;
    link.click();
    URL.revokeObjectURL(url);
  };
  const isNumeric = columns.map(({ type }) => /Int|Float|Decimal/.test(type));
  return (
    <>
      <div className="toolbar">
        <p role="status">
          {formatNumber(rows.length)} {rows.length === 1 ? "row" : "rows"}
          {rows.length > ROWS_SHOWN_MAX && `, the first ${ROWS_SHOWN_MAX} shown`}
        </p>
        <button type="button" onClick={download}>
          Download CSV
        </button>
      </div>
      {chart !== undefined && <TimeChart label={`${name}, over time`} kind="bars" {...chart} />}
      {rows.length === 0 ? (
        <p className="empty">No rows: nothing fits. Look at the parameters, above all the times.</p>
      ) : (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
        <section className="scrolled" tabIndex={0} aria-label="Rows">
          <table>
            <thead>
              <tr>
                {columns.map(({ name, type }, n) => (
                  // biome-ignore lint/suspicious/noArrayIndexKey: two columns may have one name
                  <th key={n} scope="col" title={type} className={isNumeric[n] ? "number" : undefined}>
                    {name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {rows.slice(0, ROWS_SHOWN_MAX).map((row, r) => (
                // biome-ignore lint/suspicious/noArrayIndexKey: rows have no identity and do not move
                <tr key={r}>
                  {columns.map((_, n) => (
                    // biome-ignore lint/suspicious/noArrayIndexKey: two columns may have one name
                    <td key={n} className={isNumeric[n] ? "number" : undefined}>
                      {textOf(row[n])}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      )}
    </>
  );
}
