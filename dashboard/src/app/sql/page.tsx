import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Metadata } from "next";
import type { ReactNode } from "react";
import { questionOf } from "../../sql/question";
import { Workbench } from "../../sql/workbench";

export const metadata: Metadata = { title: "SQL" };

/** The questions that analysts find in the source, too. They are read when the site is built. */
const QUERIES = join(process.cwd(), "../clickhouse/queries");

export default function SqlPage(): ReactNode {
  const files = readdirSync(QUERIES).filter((name) => name.endsWith(".sql"));
  const questions = files.sort().map((name) => questionOf(name, readFileSync(join(QUERIES, name), "utf8")));
  return (
    <>
      <h1>SQL</h1>
      <p className="lead">
        Read-only statements to ClickHouse, as one of this service&rsquo;s analysts. Choose a question or write your
        own.
      </p>
      <Workbench questions={questions} />
    </>
  );
}
