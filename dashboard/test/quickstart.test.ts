import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { stepsOf } from "../src/snippets/quickstart";

test("a page is read into steps with their text and code", () => {
  const page =
    "# Title\n\nIntro.\n\n## One\n\nSee [this](x.md) and\n`that`.\n\n```sh\na\n\nb\n```\n\n```json\n{}\n```\n\n## Two\n\nEnd.\n";
  expect(stepsOf(page)).toEqual([
    {
      title: "One",
      text: "See this and `that`.",
      blocks: [
        { language: "sh", code: "a\n\nb" },
        { language: "json", code: "{}" },
      ],
    },
    { title: "Two", text: "End.", blocks: [] },
  ]);
});

test("every quickstart that is shown has steps with code, at the address that is replaced", () => {
  for (const name of ["curl", "typescript", "python", "sql"]) {
    const steps = stepsOf(readFileSync(new URL(`../../docs/quickstarts/${name}.md`, import.meta.url), "utf8"));
    const code = steps.flatMap(({ blocks }) => blocks.map(({ code }) => code)).join("\n");
    expect(code, name).toContain("http://127.0.0.1:8080");
    expect(code, name).not.toContain("localhost");
  }
});
