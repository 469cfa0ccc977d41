import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { AnalyticsClient } from "../src/index.js";
import { FakeService } from "./support/service.js";

const SOURCE = fileURLToPath(new URL("../src/index.ts", import.meta.url));
/** Longest time that a program may run, in milliseconds. It is ended then. */
const PROGRAM_MS_MAX = 30_000;

test("without a window, a client does nothing until it is used, and then works from memory", async () => {
  expect(globalThis.document).toBeUndefined();
  const timer = vi.spyOn(globalThis, "setTimeout");
  const service = new FakeService();
  const client = new AnalyticsClient({ baseUrl: "https://analytics.example", fetch: service.fetch });
  expect(timer).not.toHaveBeenCalled();
  await client.flush();
  expect(service.calls).toEqual([]);
  timer.mockClear();
  await client.trackEvent({ eventType: "render", userId: "ann" });
  expect(timer).toHaveBeenCalled();
  expect(timer.mock.results.every(({ value }) => value.hasRef() === false)).toBe(true);
  await client.shutdown();
  expect(service.counted.size).toBe(1);
});

describe("a program in Node.js", () => {
  let directory: string;
  let server: Server;
  let answers: ((answer: ServerResponse) => void)[];
  let received: number;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "tallyhouse-sdk-"));
    const outfile = join(directory, "sdk.mjs");
    await build({ entryPoints: [SOURCE], bundle: true, format: "esm", platform: "neutral", outfile });
  });

  afterAll(() => rm(directory, { recursive: true }));

  beforeEach(async () => {
    answers = [];
    received = 0;
    server = createServer((_, answer) => {
      received++;
      (answers.shift() ?? accept)(answer);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  });

  afterEach(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  const accept = (answer: ServerResponse): void => {
    answer.writeHead(202).end('{"accepted":1,"duplicates":0,"rejected":[]}');
  };
  const refuse = (status: number, seconds: number) => (answer: ServerResponse) => {
    answer.writeHead(status, { "retry-after": String(seconds) });
    answer.end('{"error":{"code":"REFUSED","message":"refused"}}');
  };
  const reset = (answer: ServerResponse): void => void answer.destroy();

  /** Runs a program that tracks an event; answers its exit code and its output. */
  async function run(program: string): Promise<{ code: unknown; output: string }> {
    const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const file = join(directory, "program.mjs");
    const tracking = [
      'import { AnalyticsClient } from "./sdk.mjs";',
      `const client = new AnalyticsClient({ baseUrl: "${baseUrl}", backoffMsMin: 500 });`,
      'await client.trackEvent({ eventType: "job" });',
    ];
    await writeFile(file, [...tracking, program].join("\n"));
    return new Promise((resolve) => {
      execFile(process.execPath, [file], { timeout: PROGRAM_MS_MAX }, (error, stdout) => {
        resolve({ code: error === null ? 0 : (error.code ?? error.signal), output: stdout.trim() });
      });
    });
  }

  test.each([
    ["a 429", refuse(429, 1)],
    ["a 503", refuse(503, 1)],
    ["a connection that is reset", reset],
  ])("lives until its flush is done, also after %s", { timeout: PROGRAM_MS_MAX }, async (_, failure) => {
    answers.push(failure, failure);
    expect(await run('await client.flush();\nconsole.log("flushed");')).toEqual({ code: 0, output: "flushed" });
    expect(received).toBe(3);
  });

  test("ends where nobody waits, or no longer", { timeout: 2 * PROGRAM_MS_MAX }, async () => {
    expect(await run("")).toEqual({ code: 0, output: "" });
    answers.push(refuse(503, 600));
    const limited = "await client.flush({ timeoutMs: 1_000 }).catch((error) => console.log(error.code));";
    expect(await run(limited)).toEqual({ code: 0, output: "TIMEOUT" });
  });
});
