import type { Metadata, Viewport } from "next";
import type { ReactNode } from "react";
import "uplot/dist/uPlot.min.css";
import "./globals.css";
import { Navigation } from "../layout/navigation";
import { SessionProvider } from "../session/session";

export const metadata: Metadata = {
  title: { default: "Tallyhouse", template: "%s · Tallyhouse" },
  description: "Events, counted exactly once.",
};

export const viewport: Viewport = { width: "device-width", initialScale: 1, colorScheme: "light dark" };

export default function Layout({ children }: { children: ReactNode }): ReactNode {
  return (
    <html lang="en">
      <body>
        <a className="skip" href="#content">
          Skip to the content
        </a>
        <SessionProvider>
          <Navigation />
          <main id="content" tabIndex={-1}>
            {children}
          </main>
        </SessionProvider>
      </body>
    </html>
  );
}
