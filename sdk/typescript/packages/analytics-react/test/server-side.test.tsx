import { renderToString } from "react-dom/server";
import { expect, test } from "vitest";
import { AnalyticsProvider, EventsTable, useMetrics, useTrackEvent } from "../src/index.js";
import { answering, pagesOf } from "./support.js";

function Page() {
  const track = useTrackEvent();
  const { isLoading } = useMetrics({ startDate: "2026-11-27", endDate: "2026-11-27" });
  return (
    <>
      <button type="button" onClick={() => void track({ eventType: "click" })}>
        {isLoading ? "loading" : "loaded"}
      </button>
      <EventsTable />
    </>
  );
}

test("a server renders the loading state, and asks and sends nothing", () => {
  expect(globalThis.document).toBeUndefined();
  const { config, calls } = answering(pagesOf(5));
  const html = renderToString(
    <AnalyticsProvider config={config}>
      <Page />
    </AnalyticsProvider>,
  );
  expect(html).toContain("loading");
  expect(html).toContain("Loading events");
  expect(calls).not.toHaveBeenCalled();
});
