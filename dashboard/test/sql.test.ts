import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { csvOf } from "../src/sql/csv";
import { defaultOf, parametersOf, questionOf } from "../src/sql/question";

test("comments at the beginning of a file describe its statement", () => {
  const text = "-- Counts.\n--\n-- In two lines.\nSELECT 1 -- one\nFROM x;\n";
  expect(questionOf("how_many.sql", text)).toEqual({
    title: "How many",
    description: "Counts. In two lines.",
    statement: "SELECT 1 -- one\nFROM x",
  });
});

test("each parameter is found once, but not in texts", () => {
  const statement = "SELECT '{no:String} -- ', 'it''s', 'a\\'{no:Date}', `{no:Int8}`, {n:UInt8} # {no:UInt8}";
  expect(parametersOf(statement)).toEqual([{ name: "n", type: "UInt8" }]);
});

test("each parameter is found once, but not in comments", () => {
  const statement = "SELECT {n:UInt8}, {n:UInt8} -- {no:String}\n/* {not:Date} */ WHERE t < {to: DateTime('UTC')}";
  expect(parametersOf(statement)).toEqual([
    { name: "n", type: "UInt8" },
    { name: "to", type: "DateTime('UTC')" },
  ]);
});

test("every parameter of the questions in the source has a value to begin with", () => {
  const directory = new URL("../../clickhouse/queries/", import.meta.url);
  const files = readdirSync(directory).filter((name) => name.endsWith(".sql"));
  expect(files.length).toBeGreaterThan(5);
  for (const file of files) {
    const { statement, description } = questionOf(file, readFileSync(new URL(file, directory), "utf8"));
    expect(description, file).not.toBe("");
    for (const parameter of parametersOf(statement)) {
      expect(defaultOf(parameter, "acme", 0), `${file}: ${parameter.name}`).not.toBe("");
    }
  }
});

test("times begin a week ago", () => {
  const now = Date.parse("2026-02-10T12:00:00Z");
  expect(defaultOf({ name: "from", type: "DateTime('UTC')" }, "acme", now)).toBe("2026-02-03 12:00:00");
  expect(defaultOf({ name: "to", type: "Date" }, "acme", now)).toBe("2026-02-10");
  expect(defaultOf({ name: "org", type: "String" }, "acme", now)).toBe("acme");
});

test("CSV does not let events run as formulas in a spreadsheet, and leaves numbers as they are", () => {
  const columns = [{ name: "=name", type: "String" }];
  const texts = [
    '=HYPERLINK("x")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\tx",
    "-5",
    "+5.25",
    "-1e-7",
    "a=b",
    "",
  ];
  const csv = csvOf({ columns, rows: [...texts.map((text) => [text]), [-7]] });
  expect(csv.split("\r\n")).toEqual([
    "'=name",
    `"'=HYPERLINK(""x"")"`,
    "'+1+cmd|' /C calc'!A0",
    "'-2+3",
    "'@SUM(A1)",
    "'\tx",
    "-5",
    "+5.25",
    "-1e-7",
    "a=b",
    "",
    "-7",
    "",
  ]);
});

test("CSV quotes what would be read otherwise", () => {
  const columns = ["a", "b,c"].map((name) => ({ name, type: "String" }));
  const rows = [
    ["plain", 1],
    ['a "quoted" one', null],
    ["two\nlines", { x: [1] }],
  ];
  expect(csvOf({ columns, rows })).toBe('a,"b,c"\r\nplain,1\r\n"a ""quoted"" one",\r\n"two\nlines","{""x"":[1]}"\r\n');
});
