import { AnalyticsProvider } from "@tallyhouse/analytics-react";
import { AnalyticsClient } from "@tallyhouse/analytics-sdk";
import { createElement } from "react";
import { renderToStaticMarkup } from "react-dom/server";
import { expect, test } from "vitest";
import { Campaign } from "../src/panels/campaign";

test("campaigns are not said to be missing before the service has answered", () => {
  const client = new AnalyticsClient({ baseUrl: "https://analytics.example", storage: "memory", autoStart: false });
  const html = renderToStaticMarkup(createElement(AnalyticsProvider, { client }, createElement(Campaign)));
  expect(html).toContain("Campaign by minute");
  expect(html).toContain("Loading…");
  expect(html).not.toContain("names a campaign");
});
