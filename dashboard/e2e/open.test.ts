import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { browse, expectAccessible, expectFits, openService, PHONE, type Service, sample, send } from "./support.js";

const pages = browse();
const openPage = pages.open;

test("a service that refuses every event says so, and why", async () => {
  const service = await openService({ TALLYHOUSE_LOG_FREE_BYTES_MIN: String(2 ** 60) }).start();
  try {
    const page = await openPage(service, "/");
    const health = page.getByRole("region", { name: "Ingest health" });
    await health.getByText("Every event is refused.").waitFor();
    await health.getByText("DISK_RESERVE").waitFor();
    await health.getByText("log_free_bytes_min").waitFor();
    await expectAccessible(page);
    await service.kill();
    await health.getByRole("alert").waitFor();
    await health.getByText("Every event is refused.").waitFor({ state: "detached" });
  } finally {
    await service.stop();
  }
});

describe("with events and without tokens", () => {
  let service: Service;

  beforeAll(async () => {
    service = await openService().start();
    await send(service, sample(230));
  });

  afterAll(() => service?.stop());

  test("the dashboard shows what was counted, without asking for a token", async () => {
    const page = await openPage(service, "/dashboard/");
    const cards = page.getByRole("region", { name: "Totals" });
    await cards.getByText("Events").waitFor();
    expect(await cards.locator("dd").allTextContents()).toEqual(["230", "3", "116", "57", "49.14%"]);
    expect(await page.getByLabel("Token").count()).toBe(0);
    await page.getByText("Watermark").waitFor();
    await page.getByRole("region", { name: "Ingest health" }).getByText("ready").waitFor();
    await page.getByRole("img", { name: "Events by day" }).waitFor();
    await page.getByRole("img", { name: "Daily active users" }).waitFor();
    const users = page.getByRole("region", { name: "Top users" }).getByRole("row");
    await users.nth(3).waitFor();
    expect((await users.allTextContents()).slice(1)).toEqual(["user_077", "user_177", "user_276"]);
    const campaigns = page.getByRole("region", { name: "Top campaigns" }).getByRole("row");
    await campaigns.nth(2).waitFor();
    expect((await campaigns.allTextContents()).slice(1)).toEqual(["camp_a115", "camp_b58"]);
    await expectAccessible(page);
  });

  test("another metric and another range are shown", async () => {
    const page = await openPage(service, "/dashboard/");
    await page.getByLabel("Metric").selectOption("clicks");
    await page.getByRole("img", { name: "Clicks by day" }).waitFor();
    const daily = page.getByRole("region", { name: "By day", exact: true });
    await daily.getByText("Show as a table").click();
    expect(await daily.locator("details tr").count()).toBe(8);
    await page.getByLabel("Range").first().selectOption("1");
    await expect.poll(() => daily.locator("details tr").count()).toBe(2);
  });

  test("a campaign is shown minute by minute", async () => {
    const page = await openPage(service, "/dashboard/");
    const panel = page.getByRole("region", { name: "Campaign by minute" });
    await panel.getByRole("img", { name: "Impressions and clicks of camp_a by minute" }).waitFor();
    await panel.getByText("Show as a table").click();
    const cells = await panel.locator("details td").allTextContents();
    const sum = (column: number) =>
      cells.reduce((sum, text, n) => sum + (n % 2 === column ? Number(text.replaceAll(",", "")) : 0), 0);
    expect([sum(0), sum(1)]).toEqual([58, 57]);
    await panel.getByLabel("Campaign", { exact: true }).fill("camp_b");
    await panel.getByRole("img", { name: "Impressions and clicks of camp_b by minute" }).waitFor();
    await panel.getByLabel("Campaign", { exact: true }).fill("nowhere");
    await panel.getByText("nowhere has no impressions and clicks in this range.").waitFor();
  });

  test("campaigns that cannot be asked for are not said to be missing", async () => {
    await pages.context().route("**/api/v1/campaigns/top?*", (route) => route.abort());
    const page = await openPage(service, "/dashboard/");
    const panel = page.getByRole("region", { name: "Campaign by minute" });
    await panel.getByRole("alert").getByText("NETWORK_ERROR").waitFor();
    expect(await panel.getByText("names a campaign").count()).toBe(0);
  });

  test("all events are reached by keyboard, filtered by type, and shown whole", async () => {
    const page = await openPage(service, "/dashboard/");
    const panel = page.getByRole("region", { name: "Recent events" });
    const status = panel.getByRole("status");
    await status.getByText("50 events loaded, more follow").waitFor({ state: "attached" });
    await panel.locator('[role="row"][tabindex="0"]').focus();
    for (const loaded of [100, 150, 200, 230]) {
      await page.keyboard.press("End");
      await status.getByText(`${loaded} events loaded`).waitFor({ state: "attached" });
    }
    await page.keyboard.press("End");
    await page.keyboard.press("Enter");
    const dialog = page.getByRole("dialog", { name: "Event e-0" });
    await dialog.getByText('"plan": "free"').waitFor();
    await expectAccessible(page);
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "detached" });
    await panel.getByLabel("Type").fill("signup");
    await page.keyboard.press("Enter");
    await status.getByText("50 events loaded").waitFor({ state: "attached" });
    const types = await panel.locator('[data-part="row"] [role="gridcell"]:nth-child(2)').allTextContents();
    expect(new Set(types)).toEqual(new Set(["signup"]));
  });

  test("the live tail shows each verdict as it is made", async () => {
    const page = await openPage(service, "/dashboard/");
    const panel = page.getByRole("region", { name: "Live tail" });
    await panel.getByRole("button", { name: "Follow" }).press("Enter");
    await panel.getByText("Waiting for events").waitFor();
    await send(service, [{ eventType: "live", eventId: "live-1", userId: "ann" }]);
    const row = panel.getByRole("row", { name: /live-1/ });
    await row.getByText("accepted").waitFor();
    await expectAccessible(page);
    await panel.getByRole("button", { name: "Pause" }).click();
    await panel.getByText("Paused.").waitFor();
    await panel.getByLabel("Verdict", { exact: true }).selectOption("duplicate");
    await panel.getByRole("button", { name: "Follow" }).click();
    await panel.getByText(/Following|Waiting/).waitFor();
    const again = { eventType: "twice", eventId: "twice-1", timestamp: new Date() };
    await send(service, [again]);
    await send(service, [again]);
    await panel
      .getByRole("row", { name: /twice-1/ })
      .getByText("duplicate")
      .waitFor();
    expect(await panel.getByRole("row", { name: /twice-1/ }).count()).toBe(1);
  });

  test("ready-made questions are answered as table, chart and file", async () => {
    const page = await openPage(service, "/sql/");
    await page.getByLabel("Question").selectOption("Event types by day");
    await page.getByLabel("SQL statement").focus();
    await page.keyboard.press("Control+Enter");
    const result = page.getByRole("region", { name: "Result" });
    await result.getByText(/^\d+ rows$/).waitFor();
    const rows = await result.getByRole("row").allTextContents();
    expect(rows[0]).toBe("daytypeevents");
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      result.getByRole("button", { name: "Download CSV" }).click(),
    ]);
    const file = readFileSync((await download.path()) as string, "utf8");
    expect(download.suggestedFilename()).toBe("event-types-by-day.csv");
    expect(file.trimEnd().split("\r\n").length).toBe(rows.length);
    expect(file).toMatch(/^day,type,events\r\n\d{4}-\d\d-\d\d,/);
    await expectAccessible(page);

    await page.getByLabel("Question").selectOption("Daily active users");
    await page.getByRole("button", { name: "Run" }).click();
    await result.getByRole("img", { name: "Daily active users, over time" }).waitFor();
    await expectAccessible(page);
  });

  test("what is wrong with a statement is said, and nothing but reading is possible", async () => {
    const page = await openPage(service, "/sql/");
    const statement = page.getByLabel("SQL statement");
    const alert = page.getByRole("region", { name: "Result" }).getByRole("alert");
    for (const [text, expected] of [
      ["SELECT nothing FROM nowhere", "there is no table nowhere"],
      ["DROP TABLE events", "SYNTAX_ERROR|ACCESS_DENIED"],
      ["SELECT * FROM file('/etc/passwd')", "ACCESS_DENIED|UNKNOWN"],
    ] as const) {
      await statement.fill(text);
      await page.keyboard.press("Control+Enter");
      await alert.getByText(new RegExp(expected)).waitFor();
    }
    await expectAccessible(page);
  });

  test("large integers are exact, in the table and in the file", async () => {
    const page = await openPage(service, "/sql/");
    await page.getByLabel("SQL statement").fill("SELECT 18446744073709551615 AS large, [1, 2] AS list, 5 AS small");
    await page.keyboard.press("Control+Enter");
    const result = page.getByRole("region", { name: "Result" });
    await result.getByText("18446744073709551615").waitFor();
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      result.getByRole("button", { name: "Download CSV" }).click(),
    ]);
    const file = readFileSync((await download.path()) as string, "utf8");
    expect(file).toBe('large,list,small\r\n18446744073709551615,"[1,2]",5\r\n');
  });

  test("a statement that runs can be cancelled, and does not answer another question", async () => {
    const page = await openPage(service, "/sql/");
    await page.route("**/api/v1/sql?*", () => {});
    const result = page.getByRole("region", { name: "Result" });
    await page.getByRole("button", { name: "Run" }).click();
    await result.getByText("Running…").waitFor();
    await expectAccessible(page);
    const cancelled = page.waitForEvent("requestfailed");
    await result.getByRole("button", { name: "Cancel" }).click();
    expect((await cancelled).url()).toContain("/api/v1/sql");
    await result.getByText("Run the statement to see its result here.").waitFor();
    await page.getByRole("button", { name: "Run" }).click();
    const ended = page.waitForEvent("requestfailed");
    await page.getByLabel("Question").selectOption("Top users");
    await ended;
    await result.getByText("Run the statement to see its result here.").waitFor();
  });

  test("without a clipboard, as on pages without HTTPS, snippets are copied all the same", async () => {
    await pages.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    await pages.context().addInitScript(() => {
      const { clipboard } = navigator;
      Object.assign(window, { clipboard });
      Object.defineProperty(Navigator.prototype, "clipboard", { value: undefined });
    });
    const page = await openPage(service, "/snippets/");
    const first = page.getByRole("region", { name: "curl" }).locator(".code").first();
    await first.getByRole("button", { name: "Copy" }).click();
    await first.getByRole("button", { name: "Copied" }).waitFor();
    const copied = await page.evaluate(() => (window as unknown as { clipboard: Clipboard }).clipboard.readText());
    expect(copied.trim()).toBe(await first.locator("pre").textContent());
  });

  test("a page that is open at midnight shows the new day", async () => {
    const page = await pages.context().newPage();
    await page.clock.install();
    await page.goto(`${service.url}/dashboard/`);
    await page.getByLabel("Range").first().selectOption("1");
    const daily = page.getByRole("region", { name: "By day", exact: true });
    await daily.getByText("Show as a table").click();
    const day = daily.locator('details th[scope="row"]');
    const today = (await day.allTextContents()).join();
    const tomorrow = new Date(Date.parse(today) + 86_400_000).toISOString().slice(0, 10);
    await page.clock.fastForward(86_400_000);
    await expect.poll(() => day.allTextContents(), { timeout: 20_000 }).toEqual([tomorrow]);
  });

  test("snippets have this service's address and can be copied", async () => {
    await pages.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    const page = await openPage(service, "/snippets/");
    await page.getByText(`curl -sS ${service.url}/api/v1/events`).first().waitFor();
    for (const language of ["curl", "TypeScript", "Python", "SQL"]) {
      expect(await page.getByRole("region", { name: language, exact: true }).locator("pre").count()).toBeGreaterThan(1);
    }
    expect(await page.locator("main").textContent()).not.toContain("127.0.0.1:8080");
    await page.getByText("This service requires no token").waitFor();
    const first = page.getByRole("region", { name: "curl" }).locator(".code").first();
    await first.getByRole("button", { name: "Copy" }).click();
    await first.getByRole("button", { name: "Copied" }).waitFor();
    expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(await first.locator("pre").textContent());
    await expectAccessible(page);
  });

  test("every page is reached from the first one, by keyboard, and stays within a phone's width", async () => {
    const page = await openPage(service, "/");
    await page.getByRole("region", { name: "Ingest health" }).getByText("ready").waitFor();
    await page.keyboard.press("Tab");
    expect(await page.evaluate(() => document.activeElement?.textContent)).toBe("Skip to the content");
    await page.keyboard.press("Enter");
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("content");
    await page.setViewportSize(PHONE);
    for (const [link, heading] of [
      ["Dashboard", "Dashboard"],
      ["SQL", "SQL"],
      ["Snippets", "Snippets"],
      ["Tallyhouse", "Tallyhouse"],
    ] as const) {
      await page.getByRole("navigation").getByRole("link", { name: link }).press("Enter");
      await page.getByRole("heading", { level: 1, name: heading }).waitFor();
      if (heading === "Dashboard") await page.getByRole("img", { name: /camp_a by minute/ }).waitFor();
      await expectFits(page);
      await expectAccessible(page);
    }
  });

  test("in the dark, colors still have enough contrast", async () => {
    await pages.renew({ colorScheme: "dark" });
    for (const path of ["/", "/dashboard/", "/sql/", "/snippets/"]) {
      const page = await openPage(service, path);
      await page.getByRole("heading", { level: 1 }).waitFor();
      if (path === "/dashboard/") await page.getByRole("img", { name: /camp_a by minute/ }).waitFor();
      await expectAccessible(page);
    }
  });

  test("a script that is put into a page does not run", async () => {
    const page = await openPage(service, "/dashboard/");
    const blocked = await page.evaluate(async () => {
      const violated = new Promise<string>((resolve) =>
        document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective), {
          once: true,
        }),
      );
      const script = document.createElement("script");
      script.textContent = "window.hasRun = true";
      document.body.append(script);
      return [await violated, "hasRun" in window];
    });
    expect(blocked).toEqual(["script-src-elem", false]);
    // That was the point.
    pages.forgive();
  });

  test("the REST documentation works without the internet", async () => {
    const page = await openPage(service, "/docs/");
    await page.getByText("/api/v1/metrics/summary").first().waitFor();
    await page.goto(`${service.url}/redoc`);
    await page.getByText("/api/v1/metrics/summary").first().waitFor();
  });
});

describe("without events", () => {
  let service: Service;

  beforeAll(async () => {
    service = await openService().start();
  });

  afterAll(() => service?.stop());

  test("every panel says what to do", async () => {
    const page = await openPage(service, "/dashboard/");
    for (const text of [
      "There are no events in this range.",
      "No event of this range names a user.",
      "No event of this window names a user.",
      "No event of this window names a campaign.",
      "No event of the last 24 hours names a campaign.",
      "Follow to see each event's verdict as it is made.",
      "There are no events yet.",
    ]) {
      await page.getByText(text).waitFor();
    }
    await expectAccessible(page);
    await page.setViewportSize(PHONE);
    await expectFits(page);
    await page.getByRole("link", { name: "snippets", exact: true }).click();
    await page.getByRole("heading", { level: 1, name: "Snippets" }).waitFor();
    await page.goto(`${service.url}/sql/`);
    await page.getByText("Run the statement to see its result here.").waitFor();
    await page.getByLabel("Question").selectOption("Top users");
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByText("No rows: nothing fits.").waitFor();
    await expectAccessible(page);
  });

  test("the first event appears by itself", async () => {
    const page = await openPage(service, "/dashboard/");
    await page.getByText("There are no events in this range.").waitFor();
    await send(service, [{ eventType: "signup", userId: "ann" }]);
    await page.getByText("There are no events in this range.").waitFor({ state: "detached" });
    expect(await page.getByRole("region", { name: "Totals" }).locator("dd").first().textContent()).toBe("1");
    await page
      .getByRole("region", { name: "Recent events" })
      .getByRole("row", { name: /signup/ })
      .waitFor();
    await send(service, [{ eventType: "click", campaignId: "camp_new" }]);
    await page.getByRole("img", { name: "Impressions and clicks of camp_new by minute" }).waitFor();
  });

  test("a service that goes away is said to be away, and found again", async () => {
    const page = await openPage(service, "/dashboard/");
    await page.getByRole("region", { name: "Totals" }).locator("dd").first().waitFor();
    await service.kill();
    await page.getByText("This cannot be loaded: the service cannot be reached").first().waitFor();
    await expectAccessible(page);
    await service.start();
    await expect.poll(() => page.locator(".notice.bad").count(), { timeout: 60_000 }).toBe(0);
  });
});
