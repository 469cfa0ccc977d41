import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../../../", import.meta.url));
/** Longest wait for a service to be ready, in milliseconds. */
const READY_MS_MAX = 60_000;
/** Longest wait for ClickHouse to have what was acknowledged, in milliseconds. */
const COUNTED_MS_MAX = 30_000;

/** The binary that `TALLYHOUSE_BIN` names, or the one that cargo builds. */
function binary(): string {
  const named = process.env.TALLYHOUSE_BIN;
  if (named) return named;
  const built = join(ROOT, "target/debug/tallyhouse");
  if (!existsSync(built))
    execFileSync("cargo", ["build", "--locked", "--bin", "tallyhouse"], { cwd: ROOT, stdio: "inherit" });
  return built;
}

interface EventList {
  events: { event_id: string }[];
  next_cursor: string | null;
}

/** A real service with its embedded ClickHouse, which can be killed and started again. */
export class Service {
  url = "";
  readonly #binary = binary();
  readonly #dataDir = mkdtempSync(join(tmpdir(), "tallyhouse-e2e-"));
  readonly #environment: NodeJS.ProcessEnv;
  #process: ChildProcess | undefined;
  #output = "";

  /** With these settings; one that is undefined is taken out of the environment. */
  constructor(settings: Record<string, string | undefined> = {}) {
    const secret = randomBytes(32).toString("hex");
    this.#environment = { ...process.env, TALLYHOUSE_AUTH_HS256_SECRET: secret, ...settings };
  }

  /** Starts it, at the address it had before. */
  async start(): Promise<this> {
    const listen = this.url === "" ? "127.0.0.1:0" : new URL(this.url).host;
    const args = ["dev", "--listen", listen, "--data-dir", this.#dataDir, "--clickhouse-http-port", "0"];
    const child = spawn(this.#binary, args, { env: this.#environment, stdio: ["ignore", "pipe", "pipe"] });
    this.#process = child;
    this.url = await new Promise<string>((resolve, reject) => {
      const fail = (reason: string): void => reject(new Error(`the service did not start: ${reason}\n${this.#output}`));
      const timer = setTimeout(fail, READY_MS_MAX, "time is over");
      const read = (chunk: Buffer): void => {
        this.#output += chunk;
        const url = /gRPC, grpc-web, REST\s+(\S+)/.exec(this.#output.slice(-4_000))?.[1];
        if (url === undefined) return;
        clearTimeout(timer);
        this.#output = "";
        resolve(url);
      };
      child.stdout?.on("data", read);
      child.stderr?.on("data", read);
      child.on("exit", (code) => fail(`it ended with ${code}`));
    });
    return this;
  }

  /** Kills it as the kernel does when memory is short. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  async stop(): Promise<void> {
    await this.#end("SIGTERM");
    rmSync(this.#dataDir, { recursive: true, force: true });
  }

  /** A token of an organization. */
  token(org: string, scope = "ingest read"): string {
    const args = ["token", "--org", org, "--scope", scope];
    return execFileSync(this.#binary, args, { env: this.#environment }).toString().trim();
  }

  /** A new write key of an organization. */
  async createWriteKey(org: string): Promise<{ key_id: string; text: string }> {
    const answer = await fetch(`${this.url}/api/v1/write-keys`, {
      method: "POST",
      headers: { authorization: `Bearer ${this.token(org, "admin")}`, "content-type": "application/json" },
      body: JSON.stringify({ name: "page" }),
    });
    return (await answer.json()) as { key_id: string; text: string };
  }

  /** The password of an organization's analyst. */
  analystPassword(org: string): string {
    const args = ["analyst", org, "--data-dir", this.#dataDir];
    const printed = execFileSync(this.#binary, args, { env: this.#environment }).toString();
    return /password\s+(\S+)/i.exec(printed)?.[1] ?? "";
  }

  /** How many events of an organization are counted, once everything acknowledged until now is; and their ids. */
  async counted(org: string): Promise<{ total: number; ids: string[] }> {
    const today = new Date();
    const days = [new Date(today.getTime() - 86_400_000), new Date(today.getTime() + 86_400_000)];
    const [start, end] = days.map((day) => day.toISOString().slice(0, 10));
    const summary = `/api/v1/metrics/summary?start_date=${start}&end_date=${end}&metrics=events`;
    const until = Date.now() + COUNTED_MS_MAX;
    const wanted = Date.now();
    for (;;) {
      const { body, watermark } = await this.#get<{ metrics: { total: number }[] }>(org, summary);
      if (watermark >= wanted) return { total: body.metrics[0]?.total ?? -1, ids: await this.#ids(org) };
      if (Date.now() > until) throw new Error("what was acknowledged is not counted in time");
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async #ids(org: string): Promise<string[]> {
    const ids: string[] = [];
    for (let cursor: string | null = ""; cursor !== null; ) {
      const path: string = `/api/v1/events?limit=500${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`;
      const page: { body: EventList } = await this.#get<EventList>(org, path);
      ids.push(...page.body.events.map((event) => event.event_id));
      cursor = page.body.next_cursor;
    }
    return ids;
  }

  async #get<T>(org: string, path: string): Promise<{ body: T; watermark: number }> {
    const answer = await fetch(this.url + path, { headers: { authorization: `Bearer ${this.token(org, "read")}` } });
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    const watermark = Date.parse(answer.headers.get("x-watermark") ?? "");
    return { body: (await answer.json()) as T, watermark };
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.removeAllListeners("exit");
    const exited = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await exited;
  }
}
