// The live state of each app: polls this gateway every few seconds and draws the responses. Figures are shown only while
// they are current: if a request fails, the error replaces them.
import { PERIODS, clock, draw, emptied, readings, stateOf } from "./card.js";

const EVERY_MS = 3000;
const ANSWER_MS = 8000;
// A round requests the list of apps, and the budget and usage of this many of them: 13 requests, however many apps there
// are. Visible apps come first, then those requested least recently. The next round starts when this one has ended.
const APPS_A_ROUND = 6;
const OLD_MS = 4 * EVERY_MS;
const SOON_MS = 1000;
const KEY = "taskgate.key";
const $ = (id) => document.getElementById(id);

const cards = new Map();
let key = sessionStorage.getItem(KEY) || "";
let period = "hour";
let call = "list";
let round = null;
let begun = 0;
let timer = 0;
let lastGood = null;
let said = "";
let isNewKey = false;

class Trouble extends Error {
  constructor(title, detail, status) {
    super(title);
    this.detail = detail || "";
    this.status = status || 0;
  }
}

// Return the gateway's response body. Throw Trouble with its problem, or if there is no response.
async function ask(path, signal) {
  let answer;
  try {
    answer = await fetch(path, {
      headers: { Authorization: `Bearer ${key}`, Accept: "application/json" },
      cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]),
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
    const problem = body || {};
    throw new Trouble(String(problem.title || `The gateway answered ${answer.status}`), String(problem.detail || ""), answer.status);
  }
  if (body === null) throw new Trouble("The gateway's answer can't be read");
  return body;
}

// Run one round; starting another one aborts it.
async function look() {
  stop();
  const mine = (round = new AbortController());
  begun = Date.now();
  try {
    const { apps } = await ask("apps", mine.signal);
    if (mine !== round) return;
    lay(apps);
    const turn = [...cards.values()].sort((one, other) => other.inSight - one.inSight || one.asked - other.asked).slice(0, APPS_A_ROUND);
    const results = await Promise.all(turn.map((card) => lookAt(card, mine.signal)));
    if (mine !== round) return;
    show(turn, results);
  } catch (fault) {
    if (mine !== round) return;
    if (fault.status === 401) return forget("Unknown key", "Check it, or ask the operators of this gateway for one.");
    fail(fault);
  }
  round = null;
  timer = setTimeout(look, EVERY_MS);
}

function stop() {
  clearTimeout(timer);
  round?.abort();
  round = null;
}

async function lookAt(card, signal) {
  const name = encodeURIComponent(card.name);
  card.asked = Date.now();
  try {
    const [budget, usage] = await Promise.all([ask(`budget?app=${name}&call=${call}`, signal), ask(`usage?app=${name}&call=${call}&since=${PERIODS[period].since}`, signal)]);
    return { figures: readings(budget, usage, period) };
  } catch (fault) {
    if (fault.status === 401) throw fault;
    return { fault: fault instanceof Trouble ? fault : new Trouble("The gateway's answer can't be read") };
  }
}

const sentence = (text) => (text && !text.endsWith(".") ? `${text}.` : text);

// Show exactly one card for each app.
function lay(apps) {
  $("trouble").hidden = true;
  opened();
  $("choices").hidden = !apps.length;
  $("empty").hidden = apps.length > 0;
  const names = new Set(apps.map((app) => app.name));
  for (const [name, card] of cards) if (!names.has(name)) drop(card);
  for (const app of apps) if (!cards.has(app.name)) newCard(app);
}

// Hide the form once its key has been used, and move the focus from it to the heading.
function opened() {
  $("enter").hidden = true;
  $("forget").hidden = false;
  if (isNewKey) $("top").focus();
  isNewKey = false;
}

function show(turn, results) {
  lastGood = new Date();
  turn.forEach((card, index) => {
    const { figures, fault } = results[index];
    card.fault = fault;
    card.is.figures.hidden = Boolean(fault);
    card.is.trouble.hidden = !fault;
    if (fault) {
      const since = card.good ? `No figures since ${clock(card.good, true)}.` : "No figures yet.";
      showTrouble(card.is.trouble, fault.message, `${sentence(fault.detail)} ${since}`);
      emptied(card.is);
    } else {
      card.good = lastGood;
      card.budget = figures.budget;
      draw(card.is, card.name, figures);
    }
  });
  for (const card of cards.values()) card.root.classList.toggle("is-blank", isOld(card));
  summarize();
}

// Show the most serious state: missing figures, then apps with problems.
function summarize() {
  const all = [...cards.values()];
  const broken = all.filter((card) => card.fault).length;
  if (broken) return state("is-broken", `No figures for ${broken} of ${all.length} apps`, null);
  const known = all.filter((card) => card.budget).map((card) => ({ app: card.name, ...stateOf(card.budget) }));
  const wrong = known.filter(({ level }) => level !== "good");
  const kind = wrong.some(({ level }) => level === "bad") ? "is-broken" : wrong.length ? "is-warned" : "is-live";
  if (wrong.length === 1) return state(kind, `${wrong[0].app}: ${wrong[0].name.toLowerCase()}`, lastGood);
  if (wrong.length) return state(kind, `${wrong.length} of ${all.length} apps need attention`, lastGood);
  state(kind, all.length === 1 ? "Serving" : `${known.length} of ${all.length} apps serving`, lastGood);
}

// Cards out of sight are refreshed in rotation; until then, old figures are hidden.
const isOld = (card) => !card.fault && Date.now() - card.good > OLD_MS;

function newCard(app) {
  const root = $("app").content.firstElementChild.cloneNode(true);
  const is = {};
  for (const node of root.querySelectorAll("[data-is]")) is[node.dataset.is] = node;
  is.name.textContent = app.name;
  is.region.textContent = app.region || "";
  root.dataset.app = app.name;
  root.classList.add("is-blank");
  cards.set(app.name, { root, is, name: app.name, good: null, fault: null, budget: null, asked: 0, inSight: false });
  $("apps").append(root);
  sight.observe(root);
}

function drop(card) {
  sight.unobserve(card.root);
  card.root.remove();
  cards.delete(card.name);
}

function dropAll() {
  for (const card of cards.values()) drop(card);
}

const sight = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    const card = cards.get(target.dataset.app);
    if (card) card.inSight = isIntersecting;
    if (!card || !isIntersecting || !isOld(card)) continue;
    card.root.classList.add("is-blank");
    if (round || !key) continue;
    clearTimeout(timer);
    timer = setTimeout(look, Math.max(0, begun + SOON_MS - Date.now()));
  }
}, { rootMargin: "25% 0px" });

function fail(fault) {
  dropAll();
  $("empty").hidden = true;
  const since = lastGood ? `No figures since ${clock(lastGood, true)}.` : "No figures yet.";
  showTrouble($("trouble"), fault instanceof Trouble ? fault.message : "The gateway's answer can't be read", `${sentence(fault.detail || "")} ${since} Trying again every few seconds.`);
  opened();
  state("is-broken", "No figures", null);
}

function showTrouble(box, title, text) {
  if (box.dataset.shown !== title + text) {
    box.dataset.shown = title + text;
    const strong = document.createElement("b");
    strong.textContent = title;
    box.replaceChildren(strong, text.trim());
  }
  box.hidden = false;
}

// Announce changes of state to screen readers, but not every refresh.
function state(kind, text, at) {
  document.body.className = kind;
  $("state").textContent = text;
  $("clock").textContent = at ? clock(at, true) : "";
  if (said !== text) $("said").textContent = said = text;
}

function forget(title, text) {
  stop();
  key = "";
  lastGood = null;
  sessionStorage.removeItem(KEY);
  dropAll();
  $("empty").hidden = $("forget").hidden = $("choices").hidden = true;
  $("enter").hidden = false;
  $("trouble").hidden = !title;
  if (title) showTrouble($("trouble"), title, text);
  state("", "No key yet", null);
  $("key").focus();
}

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("key").value.trim();
  $("key").value = "";
  if (!/^[\x21-\x7e]+$/.test(given)) return forget("This is not a key", "A key has letters, digits and punctuation, and no spaces.");
  key = given;
  isNewKey = true;
  sessionStorage.setItem(KEY, key);
  state("", "Loading", null);
  look();
});
$("choices").addEventListener("change", ({ target }) => {
  if (target.name === "call") call = target.value;
  else period = target.value;
  for (const card of cards.values()) emptied(card.is);
  look();
});
$("forget").addEventListener("click", () => forget());
document.addEventListener("visibilitychange", () => {
  if (!key) return;
  if (document.hidden) {
    stop();
  } else {
    if (lastGood && Date.now() - lastGood > OLD_MS) dropAll();
    look();
  }
});

if (key) look();
else forget();
