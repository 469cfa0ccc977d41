import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Metadata } from "next";
import type { ReactNode } from "react";
import { stepsOf } from "../../snippets/quickstart";
import { Snippets } from "../../snippets/snippets";

export const metadata: Metadata = { title: "Snippets" };

/** Each is a page of docs/quickstarts, whose code is run by a test. They are read when the site is built. */
const QUICKSTARTS = [
  { title: "curl", file: "curl.md" },
  { title: "TypeScript", file: "typescript.md" },
  { title: "Python", file: "python.md" },
  { title: "SQL", file: "sql.md" },
];

export default function SnippetsPage(): ReactNode {
  const directory = join(process.cwd(), "../docs/quickstarts");
  const quickstarts = QUICKSTARTS.map(({ title, file }) => {
    return { title, steps: stepsOf(readFileSync(join(directory, file), "utf8")) };
  });
  return (
    <>
      <h1>Snippets</h1>
      <p className="lead">Copy, run, and look at the dashboard. The address is that of this service.</p>
      <Snippets quickstarts={quickstarts} />
    </>
  );
}
