import { defineConfig } from "vitest/config";

/** Makes the pictures in docs/screenshots: `npm run screenshots`. */
export default defineConfig({
  test: { include: ["e2e/screenshots.ts"], testTimeout: 300_000, hookTimeout: 180_000 },
});
