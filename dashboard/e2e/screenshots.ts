import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "vitest";
import { DESKTOP, launch, openService, type Page, PHONE, Service } from "./support.js";

const DIRECTORY = fileURLToPath(new URL("../../docs/screenshots/", import.meta.url));
/** Tallest picture, in pixels: the rest of a long page is cut off. */
const HEIGHT_MAX = 1_400;
const DASHBOARD_HEIGHT_MAX = 2_600;

const PAGES: { name: string; path: string; ready: (page: Page) => Promise<unknown> }[] = [
  { name: "home", path: "/", ready: (page) => page.getByText("Rows not in ClickHouse yet").waitFor() },
  {
    name: "dashboard",
    path: "/dashboard/",
    ready: async (page) => {
      await page.getByRole("img", { name: /by minute/ }).waitFor();
      await page.locator('[data-part="row"]').first().waitFor();
      await page.getByRole("img", { name: "Events by day" }).waitFor();
      await page.getByText("Watermark").waitFor();
    },
  },
  {
    name: "sql",
    path: "/sql/",
    ready: async (page) => {
      await page.getByLabel("Question").selectOption("Daily active users");
      await page.getByRole("button", { name: "Run" }).click();
      await page.getByRole("img", { name: /over time/ }).waitFor();
    },
  },
  { name: "snippets", path: "/snippets/", ready: (page) => page.getByText("curl -sS").first().waitFor() },
];

async function shoot(page: Page, name: string): Promise<void> {
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  const { width } = page.viewportSize() ?? DESKTOP;
  const clip = {
    x: 0,
    y: 0,
    width,
    height: Math.min(height, name.startsWith("dashboard") ? DASHBOARD_HEIGHT_MAX : HEIGHT_MAX),
  };
  await page.screenshot({ path: `${DIRECTORY}${name}.png`, fullPage: true, clip, animations: "disabled" });
}

test("each page at phone and desktop width, and in the dark", async () => {
  mkdirSync(DIRECTORY, { recursive: true });
  const service = await openService().start();
  const browser = await launch();
  try {
    const binary =
      process.env.TALLYHOUSE_BIN ?? fileURLToPath(new URL("../../target/debug/tallyhouse", import.meta.url));
    execFileSync(binary, ["demo", "--quiet", "--events", "50000", "--address", service.url], { stdio: "ignore" });
    for (const [suffix, viewport, colorScheme] of [
      ["desktop", DESKTOP, "light"],
      ["phone", PHONE, "light"],
      ["dark", DESKTOP, "dark"],
    ] as const) {
      const context = await browser.newContext({ viewport, colorScheme });
      for (const { name, path, ready } of PAGES) {
        if (suffix === "dark" && name !== "dashboard") continue;
        const page = await context.newPage();
        await page.goto(service.url + path);
        await ready(page);
        await shoot(page, `${name}-${suffix}`);
        await page.close();
      }
      await context.close();
    }
    const closed = await new Service({
      TALLYHOUSE_DASHBOARD_DIR: fileURLToPath(new URL("../out", import.meta.url)),
    }).start();
    const page = await browser.newPage({ viewport: PHONE });
    await page.goto(`${closed.url}/dashboard/`);
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    await shoot(page, "sign-in-phone");
    await closed.stop();
  } finally {
    await browser.close();
    await service.stop();
  }
});
