// One app's card: the responses of /budget and /usage as figures, bars, lines and rows.
const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 120;
const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact" });

// The available periods: the parameter for /usage, which parts of the response are drawn, and how long each part is.
export const PERIODS = {
  hour: { since: "-PT1H", name: "last hour", parts: "minutes", part: "minute", seconds: 60 },
  day: { since: "-P1D", name: "last day", parts: "hours", part: "hour", seconds: 3600 },
  week: { since: "-P7D", name: "last week", parts: "hours", part: "hour", seconds: 3600 },
};

export const seconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
export const clock = (date, precise) => date.toLocaleTimeString([], { hourCycle: "h23", hour: "2-digit", minute: "2-digit", ...(precise && { second: "2-digit" }) });
const sum = (rows, of) => rows.reduce((total, row) => total + of(row), 0);
const isIdle = (share) => !(share.waiting.count || share.last_hour.turns || share.last_hour.joined);

// Everything shown of an app, as numbers and texts. Unnamed callers are counted only for an hour, so a day or a week
// shows only named ones.
export function figuresOf(budget, usage, period) {
  const isHour = period === "hour";
  const shares = [...budget.callers, ...(isIdle(budget.others) ? [] : [budget.others])];
  const used = new Map(usage.callers.map((each) => [each.caller, each.used]));
  const rows = shares.map((share) => {
    const spent = share.caller === null ? null : used.get(share.caller) || null;
    const [calls, joins] = isHour ? [share.last_hour.turns, share.last_hour.joined]
      : share.caller === null ? [null, null] : [spent?.fetches || 0, spent?.joins || 0];
    return { name: share.caller, waiting: share.waiting, calls, joins, used: spent };
  });
  for (const [name, spent] of used) {
    if (!shares.some((share) => share.caller === name)) {
      rows.push({ name, waiting: { count: 0, oldest_seconds: 0 }, calls: spent.fetches, joins: spent.joins, used: spent });
    }
  }
  const own = rows[0];
  rows.sort((one, other) => (one.name === null) - (other.name === null) || other.calls - one.calls);
  const { part, parts, name, seconds: length } = PERIODS[period];
  return {
    budget, usage, rows, own, period, part, during: name,
    parts: usage[parts],
    allowed: Math.floor((budget.slots.total * length) / budget.slots.window_seconds),
    waiting: sum(shares, (share) => share.waiting.count),
    oldest: Math.max(...shares.map((share) => share.waiting.oldest_seconds)),
    calls: isHour ? sum(shares, (share) => share.last_hour.turns) : usage.total.fetches,
    callsNow: sum(shares, (share) => share.last_minute.turns),
  };
}

// Each state of an app: its name, and how serious it is.
export const STATES = {
  serving: { name: "Serving", level: "good" },
  stale: { name: "Serving stale pages", level: "warn" },
  paused: { name: "Paused", level: "warn" },
  failing: { name: "Upstream failing", level: "bad" },
  stopped: { name: "Calls stopped", level: "bad" },
  "redis-away": { name: "Redis away", level: "bad" },
};
export const stateOf = (budget) => STATES[budget.state] || { name: budget.state, level: "bad" };

const FIGURES = "state statewhy failed free slots pips waiting oldest flag worst worstof calls minute saved savedhow watchers watched bars barnote barscale lines linenote linescale from1 from2 rows".split(" ");

// Remove all old figures, even invisible ones.
export function clearFigures(is) {
  for (const name of FIGURES) is[name].replaceChildren();
  is.flag.hidden = is.condition.hidden = true;
}

export function draw(is, name, shown) {
  const whose = shown.usage.caller === null ? "" : ` by ${shown.usage.caller}`;
  drawCondition(is, shown.budget);
  drawNow(is, shown);
  drawPeriod(is, shown, whose);
  drawCharts(is, name, shown, whose);
  const mostCalls = Math.max(1, ...shown.rows.map((row) => row.calls));
  is.who.textContent = `Waiting callers, and usage in the ${shown.during}`;
  is.region2.setAttribute("aria-label", `Callers of ${name}, and their usage in the ${shown.during}`);
  is.rows.replaceChildren(...shown.rows.map((row) => tableRow(row, mostCalls, row === shown.own)));
}

function drawCondition(is, budget) {
  const { name, level } = stateOf(budget);
  is.condition.className = `condition is-${level}`;
  is.condition.hidden = false;
  is.state.textContent = `${name}.`;
  is.statewhy.textContent = `${budget.state_detail} ${lastSuccess(budget.last_success_at)}`;
  const failed = Object.entries(budget.calls.last_hour.failed).sort((one, other) => other[1] - one[1]);
  is.failed.textContent = failed.length
    ? `Failed calls, last hour: ${failed.map(([result, count]) => `${whole.format(count)} ${result}`).join(", ")}.` : "";
}

function lastSuccess(at) {
  if (at === null) return "No call succeeded in the last week.";
  return `Last successful call ${ago(Math.max(0, Date.now() - new Date(at)) / 1000)}.`;
}

function ago(past) {
  if (past < 90) return `${Math.round(past)} s ago`;
  if (past < 5400) return `${Math.round(past / 60)} min ago`;
  return past < 172_800 ? `${Math.round(past / 3600)} h ago` : `${Math.round(past / 86_400)} days ago`;
}

function drawNow(is, { budget, waiting, oldest }) {
  const { slots, pause, state } = budget;
  const flags = [
    budget.redis === "ok" ? "" : "Redis is away: these are one replica's figures",
    state !== "paused" && pause && pause.seconds ? `Paused for ${seconds(pause.seconds)}${pause.reason ? `: ${pause.reason}` : ""}` : "",
  ].filter(Boolean);
  is.flag.hidden = !flags.length;
  is.flag.textContent = flags.join(" · ");
  is.free.textContent = slots.free === null ? "?" : whole.format(slots.free);
  is.slots.textContent = slots.free === null ? "no calls now" : `of ${slots.total} in any ${windowed(slots)}`;
  is.pips.replaceChildren(...Array.from({ length: Math.min(slots.total, 40) }, (_, index) => {
    const pip = document.createElement("span");
    pip.className = `pip ${slots.free === null ? "is-unknown" : index >= slots.total - slots.free ? "is-free" : ""}`;
    return pip;
  }));
  is.waiting.textContent = whole.format(waiting);
  is.waiting.className = waiting ? "is-waiting" : "";
  is.oldest.textContent = waiting ? `longest wait ${seconds(oldest)}` : "no one is waiting";
  const worst = budget.worst_window;
  is.worstname.textContent = `Busiest ${windowed(slots)}, last hour`;
  is.worst.textContent = whole.format(worst.last_hour);
  is.worst.className = worst.last_hour > slots.total ? "is-waiting" : "";
  is.worstof.textContent = `of ${whole.format(slots.total)} calls; ${whole.format(worst.last_minute)} in the last minute`;
}

const windowed = (slots) => (slots.window_seconds === 1 ? "second" : `${slots.window_seconds} s`);

function drawPeriod(is, { usage, period, during, calls, callsNow }, whose) {
  const { total, caller } = usage;
  is.callsname.textContent = `Calls${period === "hour" ? "" : whose}, ${during}`;
  is.calls.textContent = whole.format(calls);
  is.minute.textContent = `${whole.format(callsNow)} in the last minute`;
  is.savedname.textContent = `Calls saved${caller === null ? "" : ` for ${caller}`}, ${during}`;
  is.saved.textContent = whole.format(total.saved);
  is.savedhow.textContent = total.saved ? `${whole.format(total.hits)} by caching, ${whole.format(total.joins)} by joining` : "";
  // The number of watchers follows from the seconds watched in the last full minute.
  const minute = usage.minutes.at(-2);
  is.watchname.textContent = `Watching${whose}`;
  is.watchers.textContent = whole.format(minute ? Math.round(minute.used.watched_seconds / 60) : 0);
  is.watched.textContent = `${whole.format(total.events)} events, ${whole.format(total.resets)} resets, ${during}`;
}

function drawCharts(is, name, { usage, parts, part, period, during, allowed }, whose) {
  const fetches = parts.map(({ used }) => used.fetches);
  const requests = parts.map(({ used }) => used.requests);
  const saved = parts.map(({ used }) => used.saved);
  const failed = parts.map(({ used }) => used.failed);
  const refused = parts.map(({ used }) => used.refusals);
  const most = Math.max(0, ...fetches);
  const each = part === "hour" ? "an hour" : "a minute";
  is.barname.textContent = `Calls ${each}${whose}`;
  is.barnote.textContent = `busiest ${part} ${whole.format(most)} of ${whole.format(allowed)}`;
  is.bars.setAttribute("aria-label", `Calls ${each}${whose} of ${name} in the ${during}: ${fetches.at(-1) || 0} in this ${part}, ${most} in the busiest, ${allowed} possible; ${sum(failed, Number)} failed in all.`);
  is.bars.replaceChildren(...bars(fetches, failed, allowed, Math.max(allowed, most)));
  is.barscale.replaceChildren(...scale(Math.max(allowed, most)));
  const peak = Math.max(0, ...requests, ...saved);
  const top = roundedUp(peak);
  is.linename.textContent = `Requests ${each}${whose}`;
  is.linenote.textContent = `busiest ${part} ${whole.format(peak)}`;
  is.lines.setAttribute("aria-label", `Requests ${each}${whose} of ${name} in the ${during}: ${requests.at(-1) || 0} in this ${part}, ${peak} at most; ${usage.total.saved} calls were saved and ${sum(refused, Number)} requests refused in all.`);
  is.lines.replaceChildren(...lines(requests, saved, refused, top));
  is.linescale.replaceChildren(...scale(top));
  const from = parts.length ? beginning(new Date(parts[0].start), period) : "";
  is.from1.textContent = is.from2.textContent = from;
}

function beginning(date, period) {
  if (period === "hour") return clock(date);
  if (period === "day") return `${date.toLocaleDateString("en", { weekday: "short" })} ${clock(date)}`;
  return date.toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "short" });
}

// Round up to 2, 4, 6, 8, 10, 20, 40 ...: round numbers whose halves are round, too.
function roundedUp(value) {
  const size = 10 ** Math.floor(Math.log10(Math.max(value, 2)));
  const steps = Math.ceil(value / size);
  return Math.max(2, (steps + (steps % 2)) * size);
}

// The axis labels of a chart, from top to bottom: the largest value, its half, and 0.
function scale(top) {
  return [top, top / 2, 0].map((value) => {
    const mark = document.createElement("span");
    mark.textContent = (top < 10_000 ? whole : compact).format(value);
    return mark;
  });
}

function shape(name, values) {
  const node = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(values)) node.setAttribute(attribute, value);
  return node;
}

const rule = (y) => shape("line", { class: "rule", x1: 0, x2: 600, y1: y, y2: y });

// Failed calls are the lower part of a bar, so that even a few are visible.
function bars(values, failed, allowed, top) {
  const step = 600 / Math.max(values.length, 1);
  const gap = Math.min(2, step * 0.25);
  const possible = (allowed / top) * HEIGHT;
  const high = (value) => (value ? Math.max((value / top) * HEIGHT, 2) : 0);
  return values.flatMap((value, index) => {
    const place = { x: (index * step + gap / 2).toFixed(2), width: (step - gap).toFixed(2) };
    const bar = (kind, height) => shape("rect", { class: kind, ...place, y: (HEIGHT - height).toFixed(2), height: height.toFixed(2) });
    return [bar("bar is-track", possible), bar("bar", high(value)), ...(failed[index] ? [bar("bar is-bad", high(failed[index]))] : [])];
  });
}

function lines(all, spared, refused, top) {
  const step = 600 / Math.max(all.length - 1, 1);
  const points = (values) => values.map((value, index) => `${(index * step).toFixed(2)},${((1 - value / top) * HEIGHT).toFixed(2)}`).join(" ");
  return [
    rule(0), rule(HEIGHT / 2),
    shape("polygon", { class: "wash", points: `0,${HEIGHT} ${points(spared)} 600,${HEIGHT}` }),
    shape("polyline", { class: "all", points: points(all) }),
    shape("polyline", { class: "spared", points: points(spared) }),
    ...(refused.some(Boolean) ? [shape("polyline", { class: "refused", points: points(refused) })] : []),
  ];
}

const SYSTEM = new Map([["~renewal", "renewals"], ["~ahead", "prefetching"], ["~more", "more callers"]]);
const COLUMNS = [["Requests", "requests"], ["Hits", "hits"], ["Joins", "joins"], ["Stale", "stale"], ["Waits", "waits"], ["Refused", "refusals"]];

function tableRow(row, mostCalls, isOwn) {
  const line = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = row.name === null ? "all other callers" : (SYSTEM.get(row.name) || row.name) + (isOwn ? " (you)" : "");
  const measure = document.createElement("div");
  measure.className = "measure";
  const gauge = shape("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
  gauge.append(shape("rect", { class: "bar", x: 0, y: 0, height: 10, width: ((row.calls / mostCalls) * 100).toFixed(2) }));
  const number = document.createElement("span");
  number.textContent = row.calls === null ? "–" : whole.format(row.calls);
  measure.append(number, gauge);
  const calls = document.createElement("td");
  calls.className = "wide";
  calls.dataset.label = "Calls";
  calls.append(measure);
  const used = row.used || {};
  const inLine = cell("In line", row.waiting.count, row.waiting.count ? ` · ${seconds(row.waiting.oldest_seconds)}` : "");
  if (row.waiting.count) inLine.className = "is-waiting";
  const cells = COLUMNS.map(([label, what]) =>
    cell(label, what === "joins" ? row.joins : row.name === null ? null : used[what] || 0));
  if (used.refusals) cells.at(-1).className = "is-refused";
  line.append(head, inLine, calls, ...cells);
  return line;
}

// On narrow screens, the label beside the value replaces the column header.
function cell(label, value, more) {
  const node = document.createElement("td");
  node.dataset.label = label;
  node.textContent = value === null ? "–" : whole.format(value) + (more || "");
  if (!value) node.className = "is-none";
  return node;
}
