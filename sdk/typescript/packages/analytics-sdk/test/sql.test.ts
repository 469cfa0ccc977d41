import { expect, test, vi } from "vitest";
import { AnalyticsError } from "../src/error.js";
import { createSqlClient } from "../src/sql.js";
import { json, refusal } from "./support/service.js";

const clientOf = (answer: () => Response) => {
  const fetch = vi.fn(async (_url: string, _init: RequestInit) => answer());
  return { fetch, client: createSqlClient({ baseUrl: "http://x/", password: "secret", fetch: fetch as never }) };
};

test("a statement is sent as the analyst, with its parameters beside it", async () => {
  const columns = [{ name: "n", type: "UInt64" }];
  const { fetch, client } = clientOf(() => json(200, { meta: columns, data: [[1], [2]], rows: 2 }));
  const result = await client.query("SELECT {n:UInt8} AS n", { params: { n: 1, org: "a&b" } });
  expect(result).toEqual({ columns, rows: [[1], [2]] });
  const [url, init] = fetch.mock.calls[0] ?? [];
  const format = "default_format=JSONCompact&output_format_json_quote_64bit_integers=1";
  expect(url).toBe(`http://x/api/v1/sql?${format}&param_n=1&param_org=a%26b`);
  expect(init).toMatchObject({ method: "POST", body: "SELECT {n:UInt8} AS n" });
  const headers = new Headers(init?.headers);
  expect(headers.get("x-clickhouse-user")).toBe("analyst");
  expect(headers.get("x-clickhouse-key")).toBe("secret");
  expect(headers.get("content-type")).toBe("text/plain; charset=utf-8");
});

test("integers are numbers where those are exact, and else texts", async () => {
  const types = [
    "UInt64",
    "Nullable(Int64)",
    "Array(UInt128)",
    "Map(String, UInt64)",
    "String",
    "Array(Tuple(String, Int64))",
  ];
  const meta = types.map((type, n) => ({ name: `c${n}`, type }));
  const row = ["18446744073709551615", "-5", ["1", "9007199254740993"], { a: "7" }, "12", [["12", "3"]]];
  const { client } = clientOf(() => json(200, { meta, data: [row, ["12", null, [], {}, "", []]] }));
  const { rows } = await client.query("SELECT …");
  expect(rows).toEqual([
    ["18446744073709551615", -5, [1, "9007199254740993"], { a: 7 }, "12", [["12", "3"]]],
    [12, null, [], {}, "", []],
  ]);
});

test("what is wrong with a statement is told, and it is not sent again", async () => {
  const details = [{ field: "statement", message: "there is no table x (UNKNOWN_TABLE)" }];
  const { fetch, client } = clientOf(() => refusal(422, "VALIDATION_ERROR", { details }));
  const error = await client.query("SELECT * FROM x").catch((error) => error);
  expect(error).toBeInstanceOf(AnalyticsError);
  expect(error).toMatchObject({ code: "VALIDATION_ERROR", retryable: false, details });
  expect(fetch).toHaveBeenCalledTimes(1);
});

test("an answer without columns is a bad response", async () => {
  for (const body of [{}, null, { meta: [] }, { data: [] }]) {
    const { client } = clientOf(() => json(200, body));
    await expect(client.query("SELECT 1")).rejects.toMatchObject({ code: "BAD_RESPONSE" });
  }
});
