// The live state of each app: polls this gateway every few seconds and draws the responses. Figures are shown only while
// they are current: if a request fails, the error replaces them.
import { PERIODS, clock, draw, clearFigures, figuresOf, stateOf } from "./card.js";

const INTERVAL_MS = 3000;
const TIMEOUT_MS = 8000;
// A round requests the list of apps, and the budget and usage of this many of them: 13 requests, however many apps there
// are. Visible apps come first, then those requested least recently. The next round starts when this one has ended.
const APPS_A_ROUND = 6;
const OLD_MS = 4 * INTERVAL_MS;
const MIN_INTERVAL_MS = 1000;
const KEY = "taskgate.key";
const $ = (id) => document.getElementById(id);

const cards = new Map();
let key = sessionStorage.getItem(KEY) || "";
let period = "hour";
let call = "list";
let round = null;
let startedAt = 0;
let timer = 0;
let lastUpdatedAt = null;
let announced = "";
let isNewKey = false;

class GatewayError extends Error {
  constructor(title, detail, status) {
    super(title);
    this.detail = detail || "";
    this.status = status || 0;
  }
}

// Return the gateway's response body. Throw GatewayError with its problem, or if there is no response.
async function request(path, signal) {
  let response;
  try {
    response = await fetch(path, {
      headers: { Authorization: `Bearer ${key}`, Accept: "application/json" },
      cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
    });
  } catch (fault) {
    const timedOut = fault instanceof DOMException && fault.name === "TimeoutError";
    throw new GatewayError(timedOut ? "The gateway did not answer in time" : "The gateway can't be reached");
  }
  let body = null;
  try {
    body = await response.json();
  } catch {
    body = null;
  }
  if (!response.ok) {
    const problem = body || {};
    throw new GatewayError(String(problem.title || `The gateway answered ${response.status}`), String(problem.detail || ""), response.status);
  }
  if (body === null) throw new GatewayError("The gateway's answer can't be read");
  return body;
}

// Run one round; starting another one aborts it.
async function poll() {
  stop();
  const controller = (round = new AbortController());
  startedAt = Date.now();
  try {
    const { apps } = await request("apps", controller.signal);
    if (controller !== round) return;
    syncCards(apps);
    const selected = [...cards.values()].sort((one, other) => other.isVisible - one.isVisible || one.requestedAt - other.requestedAt).slice(0, APPS_A_ROUND);
    const results = await Promise.all(selected.map((card) => fetchFigures(card, controller.signal)));
    if (controller !== round) return;
    show(selected, results);
  } catch (fault) {
    if (controller !== round) return;
    if (fault.status === 401) return forgetKey("Unknown key", "Check it, or ask the operators of this gateway for one.");
    fail(fault);
  }
  round = null;
  timer = setTimeout(poll, INTERVAL_MS);
}

function stop() {
  clearTimeout(timer);
  round?.abort();
  round = null;
}

async function fetchFigures(card, signal) {
  const name = encodeURIComponent(card.name);
  card.requestedAt = Date.now();
  try {
    const [budget, usage] = await Promise.all([request(`budget?app=${name}&call=${call}`, signal), request(`usage?app=${name}&call=${call}&since=${PERIODS[period].since}`, signal)]);
    return { figures: figuresOf(budget, usage, period) };
  } catch (fault) {
    if (fault.status === 401) throw fault;
    return { fault: fault instanceof GatewayError ? fault : new GatewayError("The gateway's answer can't be read") };
  }
}

const sentence = (text) => (text && !text.endsWith(".") ? `${text}.` : text);

// Show exactly one card for each app.
function syncCards(apps) {
  $("trouble").hidden = true;
  showSignedIn();
  $("choices").hidden = !apps.length;
  $("empty").hidden = apps.length > 0;
  const names = new Set(apps.map((app) => app.name));
  for (const [name, card] of cards) if (!names.has(name)) drop(card);
  for (const app of apps) if (!cards.has(app.name)) newCard(app);
}

// Hide the form once its key has been used, and move the focus from it to the heading.
function showSignedIn() {
  $("enter").hidden = true;
  $("forget").hidden = false;
  if (isNewKey) $("top").focus();
  isNewKey = false;
}

function show(selected, results) {
  lastUpdatedAt = new Date();
  selected.forEach((card, index) => {
    const { figures, fault } = results[index];
    card.fault = fault;
    card.is.figures.hidden = Boolean(fault);
    card.is.trouble.hidden = !fault;
    if (fault) {
      const since = card.updatedAt ? `No figures since ${clock(card.updatedAt, true)}.` : "No figures yet.";
      showError(card.is.trouble, fault.message, `${sentence(fault.detail)} ${since}`);
      clearFigures(card.is);
    } else {
      card.updatedAt = lastUpdatedAt;
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
  if (wrong.length === 1) return state(kind, `${wrong[0].app}: ${wrong[0].name.toLowerCase()}`, lastUpdatedAt);
  if (wrong.length) return state(kind, `${wrong.length} of ${all.length} apps need attention`, lastUpdatedAt);
  state(kind, all.length === 1 ? "Serving" : `${known.length} of ${all.length} apps serving`, lastUpdatedAt);
}

// Cards out of sight are refreshed in rotation; until then, old figures are hidden.
const isOld = (card) => !card.fault && Date.now() - card.updatedAt > OLD_MS;

function newCard(app) {
  const root = $("app").content.firstElementChild.cloneNode(true);
  const is = {};
  for (const node of root.querySelectorAll("[data-is]")) is[node.dataset.is] = node;
  is.name.textContent = app.name;
  is.region.textContent = app.region || "";
  root.dataset.app = app.name;
  root.classList.add("is-blank");
  cards.set(app.name, { root, is, name: app.name, updatedAt: null, fault: null, budget: null, requestedAt: 0, isVisible: false });
  $("apps").append(root);
  visibility.observe(root);
}

function drop(card) {
  visibility.unobserve(card.root);
  card.root.remove();
  cards.delete(card.name);
}

function dropAll() {
  for (const card of cards.values()) drop(card);
}

const visibility = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    const card = cards.get(target.dataset.app);
    if (card) card.isVisible = isIntersecting;
    if (!card || !isIntersecting || !isOld(card)) continue;
    card.root.classList.add("is-blank");
    if (round || !key) continue;
    clearTimeout(timer);
    timer = setTimeout(poll, Math.max(0, startedAt + MIN_INTERVAL_MS - Date.now()));
  }
}, { rootMargin: "25% 0px" });

function fail(fault) {
  dropAll();
  $("empty").hidden = true;
  const since = lastUpdatedAt ? `No figures since ${clock(lastUpdatedAt, true)}.` : "No figures yet.";
  showError($("trouble"), fault instanceof GatewayError ? fault.message : "The gateway's answer can't be read", `${sentence(fault.detail || "")} ${since} Trying again every few seconds.`);
  showSignedIn();
  state("is-broken", "No figures", null);
}

function showError(box, title, text) {
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
  if (announced !== text) $("said").textContent = announced = text;
}

function forgetKey(title, text) {
  stop();
  key = "";
  lastUpdatedAt = null;
  sessionStorage.removeItem(KEY);
  dropAll();
  $("empty").hidden = $("forget").hidden = $("choices").hidden = true;
  $("enter").hidden = false;
  $("trouble").hidden = !title;
  if (title) showError($("trouble"), title, text);
  state("", "No key yet", null);
  $("key").focus();
}

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  const entered = $("key").value.trim();
  $("key").value = "";
  if (!/^[\x21-\x7e]+$/.test(entered)) return forgetKey("This is not a key", "A key has letters, digits and punctuation, and no spaces.");
  key = entered;
  isNewKey = true;
  sessionStorage.setItem(KEY, key);
  state("", "Loading", null);
  poll();
});
$("choices").addEventListener("change", ({ target }) => {
  if (target.name === "call") call = target.value;
  else period = target.value;
  for (const card of cards.values()) clearFigures(card.is);
  poll();
});
$("forget").addEventListener("click", () => forgetKey());
document.addEventListener("visibilitychange", () => {
  if (!key) return;
  if (document.hidden) {
    stop();
  } else {
    if (lastUpdatedAt && Date.now() - lastUpdatedAt > OLD_MS) dropAll();
    poll();
  }
});

if (key) poll();
else forgetKey();
