// `node tunnel.mjs HOST PATH`: node's https through a CONNECT tunnel of its own making.
import http from "node:http";
import https from "node:https";

const [host, path] = process.argv.slice(2);
const proxy = new URL(process.env.HTTPS_PROXY);
const place = `${host}:443`;
const way = { host: proxy.hostname, port: proxy.port, method: "CONNECT", path: place, headers: { host: place } };
const asked = http.request(way);
asked.on("connect", (answer, socket) => {
  if (answer.statusCode !== 200) {
    console.error(answer.statusCode, answer.headers["x-parhelia-rule"]);
    process.exit(1);
  }
  https.get({ host, path, socket, agent: false, servername: host }, (found) => {
    found.pipe(process.stdout);
    found.on("end", () => process.exit(found.statusCode === 200 ? 0 : 1));
  });
});
asked.end();
