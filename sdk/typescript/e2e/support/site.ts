import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

/** What happens to a call on its way to the service. */
export type Fault =
  /** It is answered without the service. */
  | { status: number; headers?: Record<string, string>; body?: string }
  /** It reaches the service; the answer gets lost with the connection. */
  | "lost-answer"
  /** It reaches the service, and is answered, after so many milliseconds. */
  | { delayMs: number };

/** A call that browsers made to send events. */
export interface Call {
  at: number;
  key: string | undefined;
  ids: string[];
}

const PAGES = fileURLToPath(new URL("../pages/", import.meta.url));
const PACKAGES = fileURLToPath(new URL("../../packages/", import.meta.url));

/** A web site: pages with the built packages, and the service under the same origin, with faults on the way. */
export class Site {
  url = "";
  /** Where calls go. */
  upstream = "";
  /** What happens to the next calls that send events, in order. */
  readonly faults: Fault[] = [];
  /** What happens to each such call that has no fault of its own. */
  always: Fault | undefined;
  readonly calls: Call[] = [];
  readonly #scripts = new Map<string, string>();
  readonly #server: Server = createServer((incoming, answer) => this.#serve(incoming, answer));
  #waiting: (() => void)[] = [];
  #inFlight = 0;

  /** Serves these pages. */
  async start(pages: string[]): Promise<this> {
    const built = await build({
      entryPoints: pages.map((page) => `${PAGES}${page}`),
      bundle: true,
      format: "esm",
      write: false,
      outdir: "/",
      jsx: "automatic",
      define: { "process.env.NODE_ENV": '"production"' },
      alias: { "@tallyhouse/analytics-react": `${PACKAGES}analytics-react/dist/index.js` },
    });
    for (const file of built.outputFiles) this.#scripts.set(file.path, file.text);
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    return this;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** Begins anew. */
  reset(): void {
    this.faults.length = 0;
    this.always = undefined;
    this.calls.length = 0;
  }

  /** Resolves once so many calls that send events have come. */
  async called(count: number): Promise<void> {
    while (this.calls.length < count) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Resolves once no call is under way, also none of a page that is gone. */
  async idle(): Promise<void> {
    while (this.#inFlight > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** How often events were sent. */
  get sent(): number {
    return this.calls.reduce((sum, call) => sum + call.ids.length, 0);
  }

  #serve(incoming: IncomingMessage, answer: ServerResponse): void {
    const path = incoming.url ?? "/";
    const script = this.#scripts.get(path);
    if (script !== undefined) {
      answer.writeHead(200, { "content-type": "text/javascript" }).end(script);
    } else if (path.startsWith("/page/")) {
      const name = path.slice("/page/".length).split("?")[0];
      answer.writeHead(200, { "content-type": "text/html" });
      answer.end(`<!doctype html><html lang="en"><head><title>${name}</title><meta name="viewport" content="width=device-width">
        </head><body><main id="root"></main><script type="module" src="/${name}.js"></script></body></html>`);
    } else {
      void this.#forward(incoming, answer, path);
    }
  }

  async #forward(incoming: IncomingMessage, answer: ServerResponse, path: string): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    const isSending = incoming.method === "POST" && path === "/api/v1/events";
    const fault = isSending ? (this.faults.shift() ?? this.always) : undefined;
    if (isSending) this.#note(incoming, body);
    if (typeof fault === "object" && "status" in fault) {
      answer.writeHead(fault.status, { "content-type": "application/json", ...fault.headers }).end(fault.body ?? "{}");
      return;
    }
    this.#inFlight++;
    const end = (): void => {
      this.#inFlight--;
      this.#wakeAll();
    };
    if (typeof fault === "object") await new Promise((resolve) => setTimeout(resolve, fault.delayMs));
    const { hostname, port } = new URL(this.upstream);
    const headers = { ...incoming.headers };
    const outgoing = request({ hostname, port, path, method: incoming.method, headers }, (upstream) => {
      if (fault === "lost-answer") {
        upstream.resume().on("end", () => answer.destroy());
        return;
      }
      answer.writeHead(upstream.statusCode ?? 502, upstream.headers);
      upstream.pipe(answer);
      answer.on("close", () => outgoing.destroy());
    });
    outgoing.on("error", () => answer.destroy()).on("close", end);
    outgoing.end(body);
  }

  #note(incoming: IncomingMessage, body: Buffer): void {
    const { events } = JSON.parse(body.toString()) as { events: { event_id: string }[] };
    const key = incoming.headers["idempotency-key"] as string | undefined;
    this.calls.push({ at: Date.now(), key, ids: events.map((event) => event.event_id) });
    this.#wakeAll();
  }

  #wakeAll(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** The body of an error, as the service has it. */
export const errorBody = (code: string): string => JSON.stringify({ error: { code, message: code, details: [] } });
