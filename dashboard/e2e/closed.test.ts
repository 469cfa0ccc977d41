import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { browse, closedService, expectAccessible, expectFits, PHONE, Service, sample, send } from "./support.js";

const pages = browse();
const openPage = pages.open;

describe("where tokens are required", () => {
  let service: Service;

  beforeAll(async () => {
    service = await closedService({ TALLYHOUSE_ANALYST_ORGS: "acme" }).start();
    await send(service, sample(40), service.token("acme"));
    await send(service, sample(25, "other"), service.token("beta"));
  });

  afterAll(() => service?.stop());

  async function signIn(page: Awaited<ReturnType<typeof openPage>>, token: string): Promise<void> {
    await page.getByLabel("Token").fill(token);
    await page.keyboard.press("Enter");
  }

  test("the dashboard asks for one, and shows that organization's events only", async () => {
    const page = await openPage(service, "/dashboard/");
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    await expectAccessible(page);
    await signIn(page, service.token("acme", "read"));
    const total = page.getByRole("region", { name: "Totals" }).locator("dd").first();
    await total.getByText("40").waitFor();
    await page.getByText("acme", { exact: true }).waitFor();
    await expectAccessible(page);
    await page.reload();
    await total.getByText("40").waitFor();
    await page.getByRole("button", { name: "Sign out" }).press("Enter");
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    await page.reload();
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
  });

  test("a token that is refused is said to be, and is not kept", async () => {
    const page = await openPage(service, "/dashboard/");
    for (const [token, reason] of [
      ["nonsense", "The token was refused"],
      [service.token("acme", "ingest"), "does not have the scope 'read'"],
    ] as const) {
      await page.getByLabel("Token").waitFor();
      await signIn(page, token);
      await page.getByRole("alert").getByText(reason).waitFor();
      expect(await page.evaluate(() => Object.keys(sessionStorage))).toEqual([]);
    }
    await expectAccessible(page);
    await page.setViewportSize(PHONE);
    await expectFits(page);
  });

  test("a browser that blocks storage keeps the token while the page is open", async () => {
    await pages.context().addInitScript(() => {
      const block = {
        get: () => {
          throw new DOMException("denied", "SecurityError");
        },
      };
      for (const name of ["sessionStorage", "localStorage"]) Object.defineProperty(window, name, block);
    });
    const page = await openPage(service, "/dashboard/");
    await page.getByLabel("Token").waitFor();
    await signIn(page, service.token("acme", "read"));
    await page.getByRole("region", { name: "Totals" }).locator("dd").first().getByText("40").waitFor();
    await page.getByRole("navigation").getByRole("link", { name: "SQL" }).click();
    await page.getByRole("heading", { level: 1, name: "SQL" }).waitFor();
    await page.getByRole("navigation").getByRole("link", { name: "Dashboard" }).click();
    await page.getByRole("region", { name: "Totals" }).locator("dd").first().getByText("40").waitFor();
  });

  test("the live tail follows the organization of the token", async () => {
    const page = await openPage(service, "/dashboard/");
    await signIn(page, service.token("acme", "read"));
    const panel = page.getByRole("region", { name: "Live tail" });
    await panel.getByRole("button", { name: "Follow" }).click();
    await panel.getByText("Waiting for events").waitFor();
    await send(service, [{ eventType: "live", eventId: "of-beta" }], service.token("beta"));
    await send(service, [{ eventType: "live", eventId: "of-acme" }], service.token("acme"));
    await panel.getByRole("row", { name: /of-acme/ }).waitFor();
    expect(await panel.getByRole("row", { name: /of-beta/ }).count()).toBe(0);
  });

  test("health needs no token, and snippets say that one is needed", async () => {
    const page = await openPage(service, "/");
    await page.getByRole("region", { name: "Ingest health" }).getByText("ready").waitFor();
    await page.goto(`${service.url}/snippets/`);
    await page.getByText("This service requires a token.").waitFor();
    await expectAccessible(page);
  });

  test("statements need the analyst's password, and read that organization's rows only", async () => {
    const page = await openPage(service, "/sql/");
    const result = page.getByRole("region", { name: "Result" });
    await page.getByRole("button", { name: "Run" }).click();
    await result.getByRole("alert").getByText("user or password is wrong").waitFor();
    await page.getByLabel("User").fill("analyst_acme");
    await page.getByLabel("Password").fill(service.analystPassword("acme"));
    await page.getByLabel("SQL statement").fill("SELECT org_id, count() AS events FROM events GROUP BY org_id");
    await page.getByRole("button", { name: "Run" }).click();
    await result.getByText("1 row", { exact: true }).waitFor();
    // One more was sent by the test of the live tail.
    expect((await result.getByRole("row").allTextContents())[1]).toMatch(/^acme4[01]$/);
    await expectAccessible(page);
  });
});

describe("without the dashboard", () => {
  let service: Service;

  beforeAll(async () => {
    service = await new Service({ TALLYHOUSE_DASHBOARD_DIR: "none" }).start();
  });

  afterAll(() => service?.stop());

  test("the front page says what this is and where to go", async () => {
    const page = await openPage(service, "/");
    await page.getByRole("heading", { level: 1, name: "Tallyhouse" }).waitFor();
    await page.getByText(`curl ${new URL(service.url).host}/api/v1/events`).waitFor();
    await expectAccessible(page);
    await page.setViewportSize(PHONE);
    await expectFits(page);
    const links = await page
      .getByRole("link")
      .evaluateAll((links) => links.map((link) => (link as HTMLAnchorElement).href));
    for (const link of links) expect((await fetch(link)).status, link).toBe(200);
    await page.getByRole("link", { name: "All routes" }).press("Enter");
    await page.getByText("/api/v1/metrics/summary").first().waitFor();
  });
});
