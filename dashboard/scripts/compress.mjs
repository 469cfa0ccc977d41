// Writes a compressed copy beside each file of the exported site that is worth it. The service sends it to browsers
// that accept gzip.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const BYTES_MIN = 1_024;
const KINDS = /\.(?:css|html|js|json|svg|txt)$/;

for (const entry of readdirSync("out", { recursive: true, withFileTypes: true })) {
  const path = join(entry.parentPath, entry.name);
  if (!entry.isFile() || !KINDS.test(entry.name)) continue;
  const bytes = readFileSync(path);
  const zipped = gzipSync(bytes, { level: 9 });
  if (bytes.length >= BYTES_MIN && zipped.length < bytes.length) writeFileSync(`${path}.gz`, zipped);
}
