import { createServer, request } from "node:http";

/** Longest wait for a call, in milliseconds: libraries wait some seconds before they send again. */
const CALL_MS_MAX = 30_000;

/**
 * Passes every call on to the service. For the first call with each of these paths, the answer of the service is lost:
 * the caller is told 503 instead, so that its library sends the same again. (After a lost connection a browser itself
 * would.)
 */
export class LossyGateway {
  url = "";
  /** Every POST that the service has answered: path with query, headers, status and body of the answer. */
  calls = [];
  #upstream;
  #lost;
  #waiting = [];
  #server = createServer((incoming, answer) => this.#pass(incoming, answer));

  constructor(upstream, lost) {
    this.#upstream = new URL(upstream);
    this.#lost = new Set(lost);
  }

  async start() {
    await new Promise((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${this.#server.address().port}`;
    return this;
  }

  async stop() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** Resolves once the service has answered a call of which this is true. */
  async called(isWanted) {
    const timeout = AbortSignal.timeout(CALL_MS_MAX);
    while (!this.calls.some(isWanted)) {
      await new Promise((resolve, reject) => {
        this.#waiting.push(resolve);
        timeout.onabort = () => reject(new Error(`no such call came: ${this.calls.map(({ path, status, body, headers }) => `${headers["sec-fetch-mode"]} ${path}: ${status} ${body}`).join("\n")}`));
      });
    }
  }

  #pass(incoming, answer) {
    const { hostname, port } = this.#upstream;
    const headers = { ...incoming.headers, host: this.#upstream.host };
    const outgoing = request({ hostname, port, path: incoming.url, method: incoming.method, headers }, async (upstream) => {
      const chunks = [];
      for await (const chunk of upstream) chunks.push(chunk);
      const body = Buffer.concat(chunks);
      if (incoming.method === "POST") this.#note(incoming, upstream.statusCode, body);
      const isLost = incoming.method === "POST" && this.#lost.delete(incoming.url.split("?")[0]);
      answer.writeHead(isLost ? 503 : upstream.statusCode, upstream.headers).end(body);
    });
    outgoing.on("error", () => answer.destroy());
    incoming.pipe(outgoing);
  }

  #note(incoming, status, body) {
    this.calls.push({ path: incoming.url, headers: incoming.headers, status, body: body.toString() });
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
