/** A page that sends events as the test says. */
import {
  AnalyticsClient,
  type AnalyticsClientOptions,
  type AnalyticsError,
  type DropReport,
  type VerdictReport,
} from "@tallyhouse/analytics-sdk";

/** What the test does with the page. */
export interface TrackerPage {
  isReady: true;
  errors: Pick<AnalyticsError, "code" | "status">[];
  verdicts: VerdictReport[];
  drops: DropReport[];
  client: AnalyticsClient;
  /** Makes the client. With `beacon`, what waits when the page closes is sent to this address by a beacon. */
  make(options: Partial<AnalyticsClientOptions> & { beacon?: string }): void;
  /** Tracks `count` events with numbers from `from`, one by one. */
  track(count: number, from: number): Promise<void>;
  trackMany(count: number, from: number): Promise<void>;
}

const page = window as unknown as TrackerPage;
const numbered = (count: number, from: number) => {
  return Array.from({ length: count }, (_, n) => ({ eventType: "page_view", properties: { n: from + n } }));
};

page.errors = [];
page.verdicts = [];
page.drops = [];
page.make = ({ beacon, ...options }) => {
  page.client = new AnalyticsClient({
    closeTransport: beacon === undefined ? undefined : (body) => navigator.sendBeacon(beacon, body),
    baseUrl: "",
    backoffMsMax: 1_000,
    onError: ({ code, status }) => page.errors.push({ code, status }),
    onVerdicts: (report) => page.verdicts.push(report),
    onDrop: (report) => page.drops.push(report),
    ...options,
  });
};
page.track = async (count, from) => {
  await Promise.all(numbered(count, from).map((event) => page.client.trackEvent(event)));
};
page.trackMany = (count, from) => page.client.trackEvents(numbered(count, from));
page.isReady = true;
