// `npm run dev`: Next.js's development server and a running service under one origin, as they are when the service
// serves the built dashboard. TALLYHOUSE_ADDRESS names the service, PORT the port of this origin.
import { spawn } from "node:child_process";
import { createServer, request } from "node:http";
import { connect } from "node:net";
import { isOfTheService } from "./service-paths.mjs";

const service = new URL(process.env.TALLYHOUSE_ADDRESS ?? "http://127.0.0.1:8080");
const port = Number(process.env.PORT ?? 3000);
const pages = { hostname: "127.0.0.1", port: port + 1 };
const OWN_HOSTS = [`localhost:${port}`, `127.0.0.1:${port}`];

// The service is told that its own page asks. So pages of other sites are refused here, as it would refuse them.
function isForeign({ headers }) {
  const isOwnOrigin = headers.origin === undefined || OWN_HOSTS.includes(headers.origin.replace(/^http:\/\//, ""));
  return !OWN_HOSTS.includes(headers.host) || !isOwnOrigin;
}

const server = createServer((incoming, answer) => {
  if (isForeign(incoming)) {
    answer.writeHead(403).end();
    return;
  }
  const isForService = isOfTheService(incoming.url);
  const headers = { ...incoming.headers };
  if (isForService) {
    headers.host = service.host;
    delete headers.origin;
    delete headers["sec-fetch-site"];
  }
  const { hostname, port } = isForService ? service : pages;
  const outgoing = request({ hostname, port, path: incoming.url, method: incoming.method, headers }, (answered) => {
    answer.writeHead(answered.statusCode, answered.headers);
    answered.pipe(answer);
  });
  outgoing.on("error", () => (answer.headersSent ? answer.destroy() : answer.writeHead(502).end()));
  answer.on("close", () => outgoing.destroy());
  incoming.pipe(outgoing);
});

// Next.js tells the page over a web socket what has changed.
server.on("upgrade", (incoming, socket, head) => {
  if (isForeign(incoming)) {
    socket.destroy();
    return;
  }
  const upstream = connect(pages.port, pages.hostname, () => {
    const lines = Object.entries(incoming.headers).map(([name, value]) => `${name}: ${value}`);
    upstream.write(`${incoming.method} ${incoming.url} HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`);
    upstream.write(head);
    socket.pipe(upstream).pipe(socket);
  });
  upstream.on("error", () => socket.destroy());
  socket.on("error", () => upstream.destroy());
});

const next = spawn("next", ["dev", "--hostname", pages.hostname, "--port", String(pages.port)], {
  stdio: "inherit",
  env: { ...process.env, NEXT_TELEMETRY_DISABLED: "1" },
});
next.on("exit", (code) => process.exit(code ?? 1));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => next.kill(signal));
server.listen(port, "127.0.0.1", () => {
  console.log(`The dashboard is at http://localhost:${port}, with the service at ${service.origin}.`);
});
