// Writes the content security policy of each page of the dashboard as entries of a map for nginx: its own files, the
// scripts and styles that are written into it, and nothing from elsewhere. They are those that the service sends with
// the same pages (src/transport/website/policy.rs); dashboard/e2e/image.test.ts compares them.
//
//   node write-policies.mjs PAGES FILE
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const BASE =
  "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
  "connect-src 'self'; font-src 'self'; img-src 'self' data:; manifest-src 'self'";

/** The hashes of the elements of this name that have content of their own, each behind a space. */
function hashes(html, element) {
  const elements = html.matchAll(new RegExp(`<${element}(?:\\s[^>]*)?>(.*?)</${element}>`, "gs"));
  const contents = [...elements].map(([, content]) => content).filter((content) => content !== "");
  const sources = contents.map((content) => ` 'sha256-${createHash("sha256").update(content).digest("base64")}'`);
  return [...new Set(sources)].sort().join("");
}

const [pages, file] = process.argv.slice(2);
const entries = readdirSync(pages, { recursive: true })
  .filter((path) => path.endsWith(".html"))
  .sort()
  .map((path) => {
    const html = readFileSync(join(pages, path), "utf8");
    const policy = `${BASE}; script-src 'self'${hashes(html, "script")}; style-src 'self'${hashes(html, "style")}`;
    return `"/${path}" "${policy}";\n`;
  });
writeFileSync(file, entries.join(""));
