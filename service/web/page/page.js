// The live budgets: asks this gateway every few seconds and draws what it says. Figures are shown only while they are
// true: when an answer fails to come, they go, and what went wrong stands in their place.
"use strict";

const EVERY_MS = 3000;
const ANSWER_MS = 8000;
const KEY = "taskgate.key";
const SVG = "http://www.w3.org/2000/svg";
const whole = new Intl.NumberFormat("en");
const $ = (id) => document.getElementById(id);

const cards = new Map();
let key = sessionStorage.getItem(KEY) || "";
let round = 0;
let timer = 0;
let lastGood = null;
let said = "";

class Trouble extends Error {
  constructor(title, detail, status) {
    super(title);
    this.detail = detail || "";
    this.status = status || 0;
  }
}

// What the gateway answers; a Trouble with what it says is wrong, or that it says nothing.
async function ask(path) {
  let answer;
  try {
    answer = await fetch(path, {
      headers: { Authorization: `Bearer ${key}`, Accept: "application/json" },
      cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.timeout(ANSWER_MS),
    });
  } catch (fault) {
    const late = fault instanceof DOMException && fault.name === "TimeoutError";
    throw new Trouble(late ? "The gateway did not answer in time" : "The gateway can't be reached");
  }
  let body = null;
  try {
    body = await answer.json();
  } catch {
    body = null;
  }
  if (!answer.ok) {
    const told = body || {};
    throw new Trouble(String(told.title || `The gateway answered ${answer.status}`), String(told.detail || ""), answer.status);
  }
  if (body === null) throw new Trouble("The gateway's answer can't be read");
  return body;
}

async function look() {
  const mine = ++round;
  clearTimeout(timer);
  let wait = EVERY_MS;
  try {
    const { apps } = await ask("apps");
    const results = await Promise.all(apps.map(lookAt));
    if (mine !== round) return;
    show(apps, results);
    wait = Math.max(EVERY_MS, apps.length * 500);
  } catch (fault) {
    if (mine !== round) return;
    if (fault.status === 401) return forget("This key is not known here", "Check it, or ask the operators of this gateway for one.");
    fail(fault);
  }
  timer = setTimeout(look, wait);
}

async function lookAt(app) {
  const name = encodeURIComponent(app.name);
  try {
    const [budget, usage] = await Promise.all([ask(`budget?app=${name}`), ask(`usage?app=${name}`)]);
    return { figures: readings(budget, usage) };
  } catch (fault) {
    if (fault.status === 401) throw fault;
    return { fault: fault instanceof Trouble ? fault : new Trouble("The gateway's answer can't be read") };
  }
}

// Everything that is shown of an app, as numbers and texts.
function readings(budget, usage) {
  const shares = [...budget.callers, ...(isIdle(budget.others) ? [] : [budget.others])];
  const used = new Map(usage.callers.map((each) => [each.caller, each.used]));
  const rows = shares.map((share) => ({
    name: share.caller, waiting: share.waiting, calls: share.last_hour.turns, joins: share.last_hour.joined,
    used: share.caller === null ? null : used.get(share.caller) || null,
  }));
  for (const [name, spent] of used) {
    if (!shares.some((share) => share.caller === name)) {
      rows.push({ name, waiting: { count: 0, oldest_seconds: 0 }, calls: spent.fetches, joins: spent.joins, used: spent });
    }
  }
  const own = rows[0];
  rows.sort((one, other) => (one.name === null) - (other.name === null) || other.calls - one.calls);
  const perMinute = Math.floor((budget.slots.total * 60) / budget.slots.window_seconds);
  return {
    budget, usage, rows, own, perMinute,
    waiting: sum(shares, (share) => share.waiting.count),
    oldest: Math.max(...shares.map((share) => share.waiting.oldest_seconds)),
    calls: sum(shares, (share) => share.last_hour.turns),
    callsNow: sum(shares, (share) => share.last_minute.turns),
  };
}

const sum = (rows, of) => rows.reduce((total, row) => total + of(row), 0);
const isIdle = (share) => !(share.waiting.count || share.last_hour.turns || share.last_hour.joined);
const seconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
const sentence = (text) => (text && !text.endsWith(".") ? `${text}.` : text);
const clock = (date, precise) => date.toLocaleTimeString([], { hourCycle: "h23", hour: "2-digit", minute: "2-digit", ...(precise && { second: "2-digit" }) });

function show(apps, results) {
  lastGood = new Date();
  $("trouble").hidden = true;
  $("enter").hidden = true;
  $("forget").hidden = false;
  $("empty").hidden = apps.length > 0;
  const names = new Set(apps.map((app) => app.name));
  for (const [name, card] of cards) if (!names.has(name)) { card.root.remove(); cards.delete(name); }
  apps.forEach((app, index) => {
    const card = cards.get(app.name) || newCard(app);
    const { figures, fault } = results[index];
    card.is.figures.hidden = Boolean(fault);
    card.is.trouble.hidden = !fault;
    if (fault) {
      const since = card.good ? `No figures since ${clock(card.good, true)}.` : "There are no figures.";
      tell(card.is.trouble, fault.message, `${sentence(fault.detail)} ${since}`);
      card.is.flag.hidden = true;
      emptied(card);
    } else {
      card.good = lastGood;
      draw(card.is, app.name, figures);
    }
  });
  const broken = results.filter((result) => result.fault).length;
  state(broken ? "is-broken" : "is-live", broken ? `No figures for ${broken} of ${apps.length} apps` : "Live", broken ? null : lastGood);
}

function newCard(app) {
  const root = $("app").content.firstElementChild.cloneNode(true);
  const is = {};
  for (const node of root.querySelectorAll("[data-is]")) is[node.dataset.is] = node;
  const card = { root, is, good: null };
  is.name.textContent = app.name;
  is.region.textContent = app.region || "";
  is.region2.setAttribute("aria-label", `Callers of ${app.name}, and what they used in the last hour`);
  cards.set(app.name, card);
  $("apps").append(root);
  return card;
}

const FIGURES = "free slots pips waiting oldest flag worst worstof calls minute saved savedhow bars barnote lines linenote rows".split(" ");

// Nothing old is left, not even where nobody sees it.
function emptied(card) {
  for (const name of FIGURES) card.is[name].replaceChildren();
}

function draw(is, name, { budget, usage, rows, own, perMinute, waiting, oldest, calls, callsNow }) {
  const whose = usage.caller === null ? "" : ` by ${usage.caller}`;
  const { slots, pause } = budget;
  const flags = [
    budget.redis === "ok" ? "" : "Redis is away: one replica's figures",
    pause && pause.seconds ? `Paused for ${seconds(pause.seconds)}${pause.reason ? `: ${pause.reason}` : ""}` : "",
  ].filter(Boolean);
  is.flag.hidden = !flags.length;
  is.flag.textContent = flags.join(" · ");
  is.free.textContent = slots.free === null ? "?" : whole.format(slots.free);
  is.slots.textContent = slots.free === null ? "no calls now" : `of ${slots.total} in any ${slots.window_seconds} s`;
  is.pips.replaceChildren(...Array.from({ length: Math.min(slots.total, 40) }, (_, index) => {
    const pip = document.createElement("span");
    pip.className = `pip ${slots.free === null ? "is-unknown" : index >= slots.total - slots.free ? "is-free" : ""}`;
    return pip;
  }));
  is.waiting.textContent = whole.format(waiting);
  is.waiting.className = waiting ? "is-waiting" : "";
  is.oldest.textContent = waiting ? `oldest for ${seconds(oldest)}` : "nobody waits";
  const worst = budget.worst_window;
  is.worstname.textContent = `Worst ${slots.window_seconds === 1 ? "second" : `${slots.window_seconds} s`}, last hour`;
  is.worst.textContent = whole.format(worst.last_hour);
  is.worst.className = worst.last_hour > slots.total ? "is-waiting" : "";
  is.worstof.textContent = `of ${whole.format(slots.total)} calls; ${whole.format(worst.last_minute)} in the last minute`;
  is.calls.textContent = whole.format(calls);
  is.minute.textContent = `${whole.format(callsNow)} in the last minute`;
  const total = usage.total;
  is.savedname.textContent = `Calls saved${usage.caller === null ? "" : ` for ${usage.caller}`}, last hour`;
  is.saved.textContent = whole.format(total.saved);
  is.savedhow.textContent = total.saved ? `${whole.format(total.hits)} by caching, ${whole.format(total.joins)} by joining` : "";

  const minutes = usage.minutes;
  const fetches = minutes.map((minute) => minute.used.fetches);
  const requests = minutes.map((minute) => minute.used.requests);
  const saved = minutes.map((minute) => minute.used.saved);
  const most = Math.max(0, ...fetches);
  is.barname.textContent = `Calls a minute${whose}`;
  is.barnote.textContent = `busiest minute ${whole.format(most)} of ${whole.format(perMinute)}`;
  is.bars.setAttribute("aria-label", `Calls a minute${whose} of ${name} in the last hour: ${fetches.at(-1) || 0} in this minute, ${most} in the busiest, ${perMinute} allowed.`);
  is.bars.replaceChildren(...bars(fetches, Math.max(perMinute, most)));
  is.linename.textContent = `Requests a minute${whose}`;
  const peak = Math.max(0, ...requests, ...saved);
  is.linenote.textContent = `busiest minute ${whole.format(peak)}`;
  is.lines.setAttribute("aria-label", `Requests a minute${whose} in the last hour: ${requests.at(-1) || 0} in this minute, ${peak} at most; ${total.saved} calls were saved in all.`);
  is.lines.replaceChildren(...lines(requests, saved, peak || 1));
  const from = minutes.length ? clock(new Date(minutes[0].start)) : "";
  is.from1.textContent = is.from2.textContent = from;
  const mostCalls = Math.max(1, ...rows.map((row) => row.calls));
  is.rows.replaceChildren(...rows.map((row) => tableRow(row, mostCalls, row === own)));
}

function shape(name, values) {
  const node = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(values)) node.setAttribute(attribute, value);
  return node;
}

function bars(values, top) {
  const step = 600 / Math.max(values.length, 1);
  return values.flatMap((value, index) => {
    const height = value ? Math.max((value / top) * 120, 2) : 0;
    const place = { x: (index * step + 1).toFixed(2), width: (step - 2).toFixed(2) };
    return [
      shape("rect", { class: "bar is-track", ...place, y: 0, height: 120 }),
      shape("rect", { class: "bar", ...place, y: (120 - height).toFixed(2), height: height.toFixed(2) }),
    ];
  });
}

function lines(all, spared, top) {
  const step = 600 / Math.max(all.length - 1, 1);
  const points = (values) => values.map((value, index) => `${(index * step).toFixed(2)},${(118 - (value / top) * 114).toFixed(2)}`).join(" ");
  return [
    shape("polygon", { class: "wash", points: `0,120 ${points(spared)} 600,120` }),
    shape("polyline", { class: "all", points: points(all) }),
    shape("polyline", { class: "spared", points: points(spared) }),
  ];
}

const SYSTEM = new Map([["~renewal", "renewals"], ["~ahead", "fetches ahead"], ["~more", "many more callers"]]);

function tableRow(row, mostCalls, isOwn) {
  const line = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = row.name === null ? "all others" : (SYSTEM.get(row.name) || row.name) + (isOwn ? " (you)" : "");
  const measure = document.createElement("div");
  measure.className = "measure";
  const gauge = shape("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
  gauge.append(shape("rect", { class: "bar", x: 0, y: 0, height: 10, width: ((row.calls / mostCalls) * 100).toFixed(2) }));
  const number = document.createElement("span");
  number.textContent = whole.format(row.calls);
  measure.append(number, gauge);
  const calls = document.createElement("td");
  calls.className = "wide";
  calls.append(measure);
  const used = row.used || {};
  const inLine = cell(row.waiting.count, row.waiting.count ? ` · ${seconds(row.waiting.oldest_seconds)}` : "");
  if (row.waiting.count) inLine.className = "is-waiting";
  const hidden = row.name === null;
  line.append(head, inLine, calls, ...["requests", "hits", "joins", "stale", "waits", "refusals"].map((what) =>
    cell(what === "joins" ? row.joins : hidden ? null : used[what] || 0)));
  return line;
}

function cell(value, more) {
  const node = document.createElement("td");
  node.textContent = value === null ? "–" : whole.format(value) + (more || "");
  if (!value) node.className = "is-none";
  return node;
}

function fail(fault) {
  $("apps").replaceChildren();
  cards.clear();
  $("empty").hidden = true;
  const since = lastGood ? `No figures since ${clock(lastGood, true)}.` : "There are no figures yet.";
  tell($("trouble"), fault instanceof Trouble ? fault.message : "The gateway's answer can't be read", `${sentence(fault.detail || "")} ${since} Trying again every few seconds.`);
  $("enter").hidden = true;
  $("forget").hidden = false;
  state("is-broken", "No figures", null);
}

function tell(box, title, text) {
  if (box.dataset.told !== title + text) {
    box.dataset.told = title + text;
    const strong = document.createElement("b");
    strong.textContent = title;
    box.replaceChildren(strong, text.trim());
  }
  box.hidden = false;
}

// Screen readers hear a change of state, not every refresh.
function state(kind, text, at) {
  document.body.className = kind;
  $("state").textContent = text;
  $("clock").textContent = at ? clock(at, true) : "";
  if (said !== text) $("said").textContent = said = text;
}

function forget(title, text) {
  round += 1;
  clearTimeout(timer);
  key = "";
  lastGood = null;
  sessionStorage.removeItem(KEY);
  $("apps").replaceChildren();
  cards.clear();
  $("empty").hidden = true;
  $("forget").hidden = true;
  $("enter").hidden = false;
  $("trouble").hidden = !title;
  if (title) tell($("trouble"), title, text);
  state("", "No key yet", null);
  $("key").focus();
}

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("key").value.trim();
  $("key").value = "";
  if (!/^[\x21-\x7e]+$/.test(given)) return forget("This can't be a key", "Keys are letters, digits and signs, without spaces.");
  key = given;
  sessionStorage.setItem(KEY, key);
  state("", "Asking", null);
  look();
});
$("forget").addEventListener("click", () => forget());
document.addEventListener("visibilitychange", () => {
  if (!key) return;
  if (document.hidden) {
    clearTimeout(timer);
    round += 1;
  } else {
    if (lastGood && Date.now() - lastGood > 3 * EVERY_MS) {
      $("apps").replaceChildren();
      cards.clear();
    }
    look();
  }
});

if (key) look();
else forget();
