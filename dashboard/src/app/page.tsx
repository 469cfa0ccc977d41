import Link from "next/link";
import type { ReactNode } from "react";
import { Health } from "../panels/health";

export default function Home(): ReactNode {
  return (
    <>
      <h1>Tallyhouse</h1>
      <p className="lead">
        This service takes events, stores them in ClickHouse, and counts every event id exactly once.
      </p>
      <Health />
      <ul className="cards links">
        <li>
          <Link href="/dashboard/" prefetch={false}>
            Dashboard
          </Link>
          <p>What was counted, and what is arriving now.</p>
        </li>
        <li>
          <Link href="/snippets/" prefetch={false}>
            Snippets
          </Link>
          <p>Send events and read counts with curl, TypeScript, Python or SQL.</p>
        </li>
        <li>
          <Link href="/sql/" prefetch={false}>
            SQL
          </Link>
          <p>Ready-made questions to ClickHouse, read-only.</p>
        </li>
        <li>
          <a href="/docs/">REST routes</a>
          <p>Every route, to read and to try.</p>
        </li>
      </ul>
    </>
  );
}
