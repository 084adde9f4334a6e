// Meets the problems whose names are given, as an answer and in the last line of a stream, and prints what it reads.
import createClient from "openapi-fetch";
import type { components, paths } from "./taskgate.js";

type Problem = components["schemas"]["Problem"];
declare const process: { argv: string[] };

const show = (problem: Problem | null | undefined) => {
  if (!problem) throw new Error("no problem");
  console.log(JSON.stringify(problem));
};

const [url = "", early = "", late = ""] = process.argv.slice(2);
const client = createClient<paths, "application/json" | "application/problem+json">({
  baseUrl: url,
  headers: { Authorization: "Bearer one-key" },
});
for (const q of early.split(" ")) show((await client.GET("/tasks", { params: { query: { q } } })).error);
show((await client.GET("/problems/{name}", { params: { path: { name: "nowhere" } } })).error);
for (const q of late.split(" ")) {
  const headers = { Accept: "application/x-ndjson" };
  const { data } = await client.GET("/tasks", { params: { query: { q } }, headers, parseAs: "text" });
  const last: components["schemas"]["LastLine"] = JSON.parse(String(data).trimEnd().split("\n").at(-1) ?? "");
  show(last.end.problem);
}
