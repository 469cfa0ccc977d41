import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const source = (path: string): string => fileURLToPath(new URL(`packages/${path}`, import.meta.url));

export default defineConfig({
  resolve: { alias: { "@tallyhouse/analytics-sdk": source("analytics-sdk/src/index.ts") } },
  test: {
    include: ["packages/*/test/**/*.test.{ts,tsx}"],
    unstubGlobals: true,
    restoreMocks: true,
    pool: "threads",
    maxWorkers: 2,
  },
});
