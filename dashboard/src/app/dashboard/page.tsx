import type { Metadata } from "next";
import type { ReactNode } from "react";
import { Overview } from "../../panels/overview";
import { SignedIn } from "../../session/signed-in";

export const metadata: Metadata = { title: "Dashboard" };

export default function DashboardPage(): ReactNode {
  return (
    <>
      <h1>Dashboard</h1>
      <SignedIn>
        <Overview />
      </SignedIn>
    </>
  );
}
