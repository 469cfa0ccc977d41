// The image of the dashboard, as far as it runs without a container engine: its server, Debian's nginx, in front of a
// service that serves no dashboard itself.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { browse, openService, Service, sample, send } from "./support.js";

const IMAGE = fileURLToPath(new URL("../../deploy/docker/dashboard", import.meta.url));
const PAGES = fileURLToPath(new URL("../out", import.meta.url));
const NGINX = process.env.NGINX_BIN ?? "/usr/sbin/nginx";
/** Longest wait for nginx to answer, in milliseconds. */
const READY_MS_MAX = 10_000;
const PATHS = ["/", "/dashboard/", "/sql/", "/snippets/"];

if (!existsSync(NGINX) && process.env.CI === "true") throw new Error(`there is no ${NGINX}: install nginx-light`);

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

/** A port that nobody listens on. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** The server of the image, with the files as its build arranges them. */
class Image {
  url = "";
  readonly #directory = mkdtempSync(join(tmpdir(), "tallyhouse-dashboard-"));
  #process: ChildProcess | undefined;

  async start(service: string): Promise<this> {
    execFileSync("cp", [join(IMAGE, "nginx.conf"), this.#directory]);
    execFileSync("node", [join(IMAGE, "write-policies.mjs"), PAGES, join(this.#directory, "policies.conf")]);
    const listen = `127.0.0.1:${await freePort()}`;
    const env = {
      ...process.env,
      DASHBOARD_CONFIGURATION: this.#directory,
      DASHBOARD_DIRECTORY: join(this.#directory, "written"),
      DASHBOARD_PAGES: PAGES,
      NGINX_BIN: NGINX,
      TALLYHOUSE_LISTEN: listen,
      TALLYHOUSE_SERVICE: new URL(service).host,
    };
    this.#process = spawn(join(IMAGE, "serve"), { env, stdio: "inherit" });
    this.url = `http://${listen}`;
    const until = Date.now() + READY_MS_MAX;
    while (!(await fetch(this.url).catch(() => undefined))) {
      if (Date.now() > until || this.#process.exitCode !== null) throw new Error("nginx does not answer");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return this;
  }

  async stop(): Promise<void> {
    const child = this.#process;
    if (child !== undefined && child.exitCode === null) {
      const exited = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGQUIT");
      await exited;
    }
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

describe.skipIf(!existsSync(NGINX))("the image of the dashboard", () => {
  const pages = browse();
  let service: Service;
  let serving: Service;
  let image: Image;

  beforeAll(async () => {
    service = await new Service({ TALLYHOUSE_AUTH_HS256_SECRET: undefined, TALLYHOUSE_DASHBOARD_DIR: "none" }).start();
    serving = await openService().start();
    image = await new Image().start(service.url);
    await send(service, sample(40));
  });

  afterAll(async () => {
    await image?.stop();
    await service?.stop();
    await serving?.stop();
  });

  test("shows what the service has counted and a campaign, follows its live tail and runs statements", async () => {
    const page = await pages.open(image, "/dashboard/");
    await page.getByRole("region", { name: "Totals" }).locator("dd").first().getByText("40").waitFor();
    const panel = page.getByRole("region", { name: "Live tail" });
    await panel.getByRole("button", { name: "Follow" }).click();
    await panel.getByText("Waiting for events").waitFor();
    await send(service, [{ eventType: "live", eventId: "live-1" }]);
    await panel.getByRole("row", { name: /live-1/ }).waitFor();
    const campaign = page.getByRole("region", { name: "Campaign by minute" });
    await campaign.getByRole("img", { name: "Impressions and clicks of camp_a by minute" }).waitFor();
    await page.goto(`${image.url}/sql/`);
    await page.getByLabel("SQL statement").fill("SELECT count() AS events FROM events");
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByRole("region", { name: "Result" }).getByRole("row").filter({ hasText: "41" }).waitFor();
    await page.goto(`${image.url}/docs/`);
    await page.getByText("/api/v1/metrics/summary").first().waitFor();
  });

  test("sends each page with the policy and the caching that the service sends", async () => {
    const names = ["content-security-policy", "cache-control", "content-type", "x-content-type-options"];
    const told = async (url: string) => {
      const answer = await fetch(url);
      return [answer.status, ...names.map((name) => answer.headers.get(name)), sha256(await answer.text())];
    };
    for (const path of PATHS) expect(await told(image.url + path), path).toEqual(await told(serving.url + path));
    const [, script] = /src="(\/_next\/static\/[^"]+\.js)"/.exec(await (await fetch(image.url)).text()) ?? [];
    const [ours, theirs] = await Promise.all([image.url, serving.url].map((url) => fetch(url + script)));
    expect(ours?.headers.get("cache-control")).toBe(theirs?.headers.get("cache-control"));
    expect(ours?.headers.get("content-encoding")).toBe(theirs?.headers.get("content-encoding"));
  });

  test("reaches no route of the service that the pages do not call, and changes nothing itself", async () => {
    const status = async (path: string, method = "GET") => (await fetch(image.url + path, { method })).status;
    expect(await status("/readyz")).toBe(200);
    for (const path of ["/metrics", "/events", "/v1/batch", "/beacon", "/healthz", "/policies.conf", "/nowhere"]) {
      expect(await status(path), path).toBe(404);
    }
    expect(await status("/dashboard/", "POST")).toBe(403);
  });

  test("says that the service is away, and finds it again", async () => {
    const page = await pages.open(image, "/dashboard/");
    await page.getByRole("region", { name: "Totals" }).locator("dd").first().waitFor();
    await service.kill();
    await page.getByText("This cannot be loaded").first().waitFor();
    await service.start();
    await expect.poll(() => page.locator(".notice.bad").count(), { timeout: 60_000 }).toBe(0);
  });
});
