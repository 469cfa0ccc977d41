// Sizes are gzipped. What is loaded later is left out of the first and part of the second.
const external = (modules) => (config) => ({
  ...config,
  external: [...(config.external ?? []), ...modules],
  format: "esm",
});
const core = "packages/analytics-sdk/dist/index.js";
const later = ["./sender-*", "./resolution-*"];

export default [
  {
    name: "what trackEvent needs",
    path: core,
    import: "{ EventTracker }",
    limit: "6 kB",
    gzip: true,
    modifyEsbuildConfig: external(later),
  },
  { name: "tracking, whole", path: core, import: "{ EventTracker }", limit: "9 kB", gzip: true },
  { name: "the core, whole", path: core, import: "*", limit: "10 kB", gzip: true },
  {
    name: "grpc-web, with connect and protobuf",
    path: "packages/analytics-sdk/dist/grpc.js",
    limit: "45 kB",
    gzip: true,
  },
  { name: "SQL", path: "packages/analytics-sdk/dist/sql.js", limit: "2 kB", gzip: true },
  {
    name: "React: provider, hooks and table, without React and the core",
    path: "packages/analytics-react/dist/index.js",
    limit: "25 kB",
    gzip: true,
    ignore: ["react", "react-dom", "@tallyhouse/analytics-sdk"],
  },
];
