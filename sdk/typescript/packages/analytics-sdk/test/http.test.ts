import { expect, test, vi } from "vitest";
import { pauseMs } from "../src/delivery/backoff.js";
import { AnalyticsError } from "../src/error.js";
import { ask, retryAfterMs } from "../src/http.js";
import { organizationOf } from "../src/token.js";
import { html, json, refusal } from "./support/service.js";

const endpoint = (fetch: () => Promise<Response>, timeoutMs = 1_000) => ({ baseUrl: "http://x", fetch, timeoutMs });

const errorOf = async (fetch: () => Promise<Response>, signal?: AbortSignal) => {
  const error = await ask(endpoint(fetch, 20), { method: "GET", path: "/", signal }).catch((error) => error);
  expect(error).toBeInstanceOf(AnalyticsError);
  return error as AnalyticsError;
};

test("an error has the service's code, and says whether trying again may help", async () => {
  const details = [{ field: "limit", message: "must be 1 to 500" }];
  expect(await errorOf(async () => refusal(422, "VALIDATION_ERROR", { details }))).toMatchObject({
    code: "VALIDATION_ERROR",
    status: 422,
    retryable: false,
    details,
  });
  const limited = async () => refusal(429, "RATE_LIMITED", { headers: { "retry-after": "3" } });
  expect(await errorOf(limited)).toMatchObject({ code: "RATE_LIMITED", retryable: true, retryAfterMs: 3_000 });
  expect(await errorOf(async () => refusal(503, "OVERLOADED"))).toMatchObject({ status: 503, retryable: true });
  expect(await errorOf(async () => refusal(401, "UNAUTHENTICATED"))).toMatchObject({ retryable: false });
});

test("what is no answer of the service is a bad response", async () => {
  for (const answer of [html, () => html(502), () => new Response(null, { status: 204 }), () => json(500, "no")]) {
    expect(await errorOf(async () => answer())).toMatchObject({ code: "BAD_RESPONSE", retryable: true });
  }
});

test("no answer is an error that tells why", async () => {
  const reset = () => Promise.reject(new TypeError("reset"));
  expect(await errorOf(reset)).toMatchObject({ code: "NETWORK_ERROR", status: 0, retryable: true });
  const hanging = vi.fn((_: unknown, init: RequestInit) => {
    return new Promise<Response>((_, reject) => init.signal?.addEventListener("abort", () => reject(new Error())));
  });
  expect(await errorOf(hanging as never)).toMatchObject({ code: "TIMEOUT", retryable: true });
  const aborted = AbortSignal.abort();
  const refusing = async (_: unknown, init?: RequestInit) => {
    init?.signal?.throwIfAborted();
    return json(200, {});
  };
  expect(await errorOf(refusing as never, aborted)).toMatchObject({ code: "ABORTED", retryable: false });
});

test("Retry-After is seconds or a date", () => {
  const now = Date.parse("2026-11-27T12:00:00Z");
  const check = (header: string | null, expected: number | undefined) => {
    expect(retryAfterMs(header, now)).toBe(expected);
  };
  check("7", 7_000);
  check(" 0 ", 0);
  check("Fri, 27 Nov 2026 12:00:30 GMT", 30_000);
  check("Fri, 27 Nov 2026 11:00:00 GMT", 0);
  for (const wrong of [null, "", "soon", "-5x"]) check(wrong, undefined);
});

test("a pause has full jitter below its bounds, and never less than was asked for", () => {
  const bounds = { msMin: 500, msMax: 60_000, retryAfterMsMax: 3_600_000 };
  for (let failures = 0; failures < 2_000; failures++) {
    const exponential = Math.min(60_000, 500 * 2 ** failures);
    expect(pauseMs(failures, undefined, bounds)).toBeGreaterThanOrEqual(0);
    expect(pauseMs(failures, undefined, bounds)).toBeLessThan(exponential);
    const ordered = pauseMs(failures, 3_000, bounds);
    expect(ordered).toBeGreaterThanOrEqual(3_000);
    expect(ordered).toBeLessThan(3_500);
  }
  expect(pauseMs(0, 1e12, bounds)).toBeLessThan(3_600_500);
  const random = vi.spyOn(Math, "random");
  expect(random.mockReturnValue(0).getMockName()).toBeDefined();
  expect(pauseMs(4, undefined, bounds)).toBe(0);
  random.mockReturnValue(0.5);
  expect(pauseMs(4, undefined, bounds)).toBe(4_000);
});

test("a token's organization is read without trusting it", () => {
  const token = (claims: object) => `e30.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.c2ln`;
  expect(organizationOf(token({ org_id: "acme" }))).toBe("acme");
  expect(organizationOf(token({ org_id: "ü_-.~" }).replace("e30", ""))).toBeTypeOf("string");
  for (const text of [undefined, "", "key", "a.b.c", token({ org_id: 5 }), token([])]) {
    expect(organizationOf(text)).toBe("");
  }
});
