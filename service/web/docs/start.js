// Mounts Scalar on the contract of this gateway. Nothing is requested from any other host, and the key is not stored.
"use strict";

// The clients for which Scalar shows samples.
const SHOWN = ["shell/curl", "python/requests", "python/httpx_sync", "js/fetch", "go/native", "java/nethttp"];
const KNOWN = {
  c: ["libcurl"], clojure: ["clj_http"], csharp: ["httpclient", "restsharp"], dart: ["http"], fsharp: ["httpclient"],
  go: ["native"], http: ["http1.1"], java: ["asynchttp", "nethttp", "okhttp", "unirest"],
  js: ["axios", "fetch", "jquery", "ofetch", "xhr"], julia: ["http"], kotlin: ["okhttp"],
  node: ["axios", "fetch", "ofetch", "undici"], objc: ["nsurlsession"], ocaml: ["cohttp"],
  php: ["curl", "guzzle", "laravel"], powershell: ["restmethod", "webrequest"],
  python: ["python3", "requests", "aiohttp", "httpx_sync", "httpx_async"], r: ["httr2"], ruby: ["native"],
  rust: ["reqwest"], shell: ["curl", "httpie", "wget"], swift: ["nsurlsession"],
};
const hidden = {};
for (const [language, clients] of Object.entries(KNOWN)) {
  hidden[language] = clients.filter((client) => !SHOWN.includes(`${language}/${client}`));
}

const root = new URL(".", document.baseURI).href.replace(/\/$/, "");

// Samples and "Test Request" start with only `app`. Scalar would send an example of every parameter at once, including
// a condition, a filter and a limit that exclude each other. Here, each has its example but is switched off.
function switchedOff(contract) {
  const operations = Object.values(contract.paths).flatMap((path) => Object.values(path));
  const inline = operations.flatMap(({ parameters = [] }) => parameters);
  for (const parameter of [...inline, ...Object.values(contract.components.parameters ?? {})]) {
    if (!parameter.schema || parameter.required || parameter.name === "app") continue;
    const { examples = [], default: usual, enum: values = [] } = parameter.schema;
    parameter.examples = { default: { value: usual ?? examples[0] ?? values[0] ?? "", "x-disabled": true } };
  }
  return contract;
}

async function start() {
  const answer = await fetch("openapi.json", { credentials: "omit" });
  if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
  Scalar.createApiReference("#docs", {
    content: switchedOff(await answer.json()),
    servers: [{ url: root, description: "This gateway" }],
    agent: { disabled: true },
    mcp: { disabled: true },
    telemetry: false,
    withDefaultFonts: false,
    hideClientButton: true,
    showDeveloperTools: "never",
    persistAuth: false,
    documentDownloadType: "none",
    featuredClients: ["shell/curl", "python/requests", "js/fetch", "go/native"],
    hiddenClients: hidden,
    defaultHttpClient: { targetKey: "shell", clientKey: "curl" },
  });
}

start().catch((error) => {
  document.getElementById("docs").textContent = `The contract can't be loaded (${error.message}). Reload this page to try again.`;
});
