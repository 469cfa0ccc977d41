/** A page with the events table, and a button that tracks. */
import {
  AnalyticsProvider,
  EventsTable,
  useAnalyticsClient,
  useMetrics,
  useTrackEvent,
} from "@tallyhouse/analytics-react";
import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";

const parameters = new URLSearchParams(location.search);
const apiKey = parameters.get("token") ?? "";

function Page() {
  const track = useTrackEvent();
  const client = useAnalyticsClient();
  const [chosen, setChosen] = useState("");
  const today = new Date().toISOString().slice(0, 10);
  const metrics = useMetrics({ startDate: today, endDate: today, metrics: ["events"] });
  return (
    <>
      <h1>Events</h1>
      <button
        type="button"
        onClick={() => void track({ eventType: "click", userId: "ann" }).then(() => client.flush())}
      >
        Track
      </button>
      <p id="total">{metrics.data?.metrics[0]?.total ?? "…"}</p>
      <p id="chosen">{chosen}</p>
      <EventsTable pageSize={50} onRowClick={(event) => setChosen(event.eventId)} />
    </>
  );
}

createRoot(document.getElementById("root") as HTMLElement).render(
  <StrictMode>
    <AnalyticsProvider config={{ baseUrl: "", apiKey }}>
      <Page />
    </AnalyticsProvider>
  </StrictMode>,
);
(window as unknown as { isReady: true }).isReady = true;
