import { readdirSync } from "node:fs";
import { AnalyticsClient } from "@tallyhouse/analytics-sdk";
import { createGrpcClients } from "@tallyhouse/analytics-sdk/grpc";
import { createSqlClient } from "@tallyhouse/analytics-sdk/sql";
import { expect, test } from "vitest";
import { isOfTheService } from "../scripts/service-paths.mjs";

/** The paths that everything asks for that the dashboard asks the service with. */
async function askedPaths(): Promise<string[]> {
  const paths: string[] = [];
  const fetch: typeof globalThis.fetch = async (input) => {
    const { pathname, search } = new URL(input instanceof Request ? input.url : String(input));
    paths.push(pathname + search);
    throw new TypeError("there is no network");
  };
  const baseUrl = "https://analytics.example";
  const client = new AnalyticsClient({ baseUrl, fetch, readRetriesMax: 0 });
  const days = { startDate: "2026-02-10", endDate: "2026-02-11" };
  const { outcomes } = createGrpcClients({ baseUrl, fetch });
  const questions: (() => Promise<unknown>)[] = [
    () => client.getEventsPage(),
    () => client.getEvent("e-1"),
    () => client.getMetricsSummary({ ...days, metrics: ["events"] }),
    () => client.getDailyActiveUsers(days),
    () => client.getTopUsers(),
    () => client.getTopCampaigns(),
    () => client.getStats({ campaignId: "camp_1", from: "2026-02-10", to: "2026-02-11" }),
    () => client.getReadiness(),
    () => createSqlClient({ baseUrl, fetch }).query("SELECT 1"),
    () => outcomes.watch({})[Symbol.asyncIterator]().next(),
  ];
  for (const ask of questions) await expect(ask()).rejects.toThrow();
  expect(paths).toHaveLength(questions.length);
  return paths;
}

test("whatever the dashboard asks the service for goes to the service during development", async () => {
  const paths = [...(await askedPaths()), "/docs/", "/openapi.json"];
  expect(paths.filter((path) => !isOfTheService(path))).toEqual([]);
});

test("pages of the dashboard and what they load do not", () => {
  const folders = readdirSync(new URL("../src/app", import.meta.url), { withFileTypes: true });
  const pages = folders.filter((entry) => entry.isDirectory()).map(({ name }) => `/${name}/`);
  expect(pages).toContain("/dashboard/");
  const paths = ["/", ...pages, "/icon.svg", "/_next/static/chunks/stats.js", "/statsbook"];
  expect(paths.filter(isOfTheService)).toEqual([]);
});
