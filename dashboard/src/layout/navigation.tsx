"use client";

import Link from "next/link";
import { usePathname } from "next/navigation";
import type { ReactNode } from "react";
import { useSession } from "../session/session";

const PAGES = [
  { href: "/dashboard/", title: "Dashboard" },
  { href: "/sql/", title: "SQL" },
  { href: "/snippets/", title: "Snippets" },
];

/** The links to all pages, and the end of the session. */
export function Navigation(): ReactNode {
  const path = usePathname();
  const { state, signOut } = useSession();
  return (
    <header className="bar">
      <nav aria-label="Pages">
        <Link className="brand" href="/" prefetch={false}>
          Tallyhouse
        </Link>
        {PAGES.map(({ href, title }) => (
          <Link key={href} href={href} prefetch={false} aria-current={path === href ? "page" : undefined}>
            {title}
          </Link>
        ))}
        <a href="/docs/">REST</a>
      </nav>
      {state.status === "ready" && state.token !== undefined && (
        <p className="session">
          <span>{state.orgId}</span>
          <button type="button" onClick={signOut}>
            Sign out
          </button>
        </p>
      )}
    </header>
  );
}
