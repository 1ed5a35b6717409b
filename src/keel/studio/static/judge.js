// The rater's page. The next pairs are already here when a key is pressed; votes leave through the outbox.
import { Offline, Refused, SessionEnded, call } from "./api.js";
import { Drafts, Stopwatch } from "./memory.js";
import { Outbox, afterPaint } from "./outbox.js";
import { Panels, ask, help } from "./panels.js";
import { Screen } from "./screen.js";

const AHEAD = 3; // pairs held beyond the one on screen: what can be judged without a connection
const LOOK_AGAIN_MS = 15000; // how often an empty queue is asked again
const HISTORY = 20; // judged pairs kept for undo

const root = document.querySelector("[data-project]");
const path = `/projects/${encodeURIComponent(root.dataset.project)}`;
const prefix = `keel:${root.dataset.user}:${root.dataset.project}`;

const outbox = new Outbox(prefix, path);
const drafts = new Drafts(prefix);
const watch = new Stopwatch();
const screen = new Screen(root);
const panels = new Panels(prefix, screen);

let queue = []; // tasks; the first is on screen
let history = JSON.parse(sessionStorage.getItem(prefix + ":history") ?? "[]"); // {task, key, earlier}
let done = new Set(outbox.waiting().filter((op) => op.kind === "judgments").map((op) => op.body.lease));
let pending = null; // a choice that waits for its strength or its reason
let shown = null; // lease on screen
let end = { state: "open" };

const current = () => queue[0];

function show() {
  const task = current();
  pending = null;
  if (!task) return finish();
  if (task.lease === shown) return;
  shown = task.lease;
  const draft = drafts.get(task.lease);
  screen.show(task, { rationale: task.earlier?.rationale, flag: task.earlier?.flag, ...draft });
  panels.guideChanged(task.guide_version);
  watch.restart(draft.seconds ?? 0);
  afterPaint(() => queue[1] && screen.prepare(queue[1]));
}

// 128 random bits in hex; crypto.randomUUID is missing on plain http.
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function finish() {
  shown = null;
  screen.finish(end);
}

function vote(choice, { strength = null, pressed } = {}) {
  const task = current();
  if (!task) return;
  if (choice === "tie" && task.ties === false) return;
  if (choice === "both_bad" && task.both_bad === false) return;
  const decided = choice === "left" || choice === "right";
  if (decided && task.strength && strength === null) {
    pending = { choice };
    return screen.askStrength(choice);
  }
  const rationale = screen.rationale();
  if (task.rationale === "required" && choice !== "skip" && !rationale) {
    pending = { choice, strength };
    return screen.askReason(choice);
  }
  const key = newKey();
  const seconds = Math.round(watch.seconds() * 1000) / 1000;
  const flag = screen.flag() || null;
  outbox.add("judgments", { lease: task.lease, choice, strength, flag, rationale: rationale || null, seconds, client_key: key });
  done.add(task.lease);
  remember({ task, key, earlier: { choice, strength, rationale, flag } });
  drafts.clear(task.lease);
  queue.shift();
  screen.counted(1);
  show();
  screen.say(current() ? `Saved: ${screen.word(choice)}. Next pair.` : `Saved: ${screen.word(choice)}.`);
  if (pressed !== undefined) measure(pressed);
}

// From the key to the frame that shows the next pair; read by anybody with performance.getEntriesByName("keel:next").
function measure(pressed) {
  requestAnimationFrame(() => {
    const channel = new MessageChannel(); // runs right after the frame is painted
    channel.port1.onmessage = () => performance.measure("keel:next", { start: pressed, end: performance.now() });
    channel.port2.postMessage(null);
  });
}

function undo() {
  const last = history.pop();
  if (!last) return screen.say("There is nothing to undo.", true);
  keepHistory();
  keepDraft();
  if (!outbox.drop(last.key)) outbox.add("undo", { client_key: last.key });
  done.delete(last.task.lease);
  drafts.set(last.task.lease, { rationale: last.earlier.rationale, flag: last.earlier.flag });
  queue = [{ ...last.task, earlier: last.earlier }, ...queue.filter((task) => task.lease !== last.task.lease)];
  screen.counted(-1);
  show();
  screen.say(`Back to the previous pair. You chose: ${screen.word(last.earlier.choice)}.`);
}

function remember(step) {
  history = [...history, step].slice(-HISTORY);
  afterPaint(keepHistory);
}

function keepHistory() {
  try {
    sessionStorage.setItem(prefix + ":history", JSON.stringify(history));
  } catch {
    history = history.slice(-3); // very long answers: fewer steps back
    sessionStorage.removeItem(prefix + ":history");
  }
}

function keepDraft() {
  const task = current();
  if (task) drafts.set(task.lease, { rationale: screen.rationale(), flag: screen.flag(), seconds: watch.seconds() });
}

// Sends what waits, then fetches what is missing.
let filling = null;
function refill() {
  filling ??= fill().finally(() => (filling = null));
  return filling;
}

async function fill() {
  await outbox.flush();
  if (outbox.state !== "saved" && outbox.state !== "sending" && queue.length) return; // judging goes on with what is here
  let reply;
  try {
    reply = await call("POST", `${path}/next`, { ahead: AHEAD });
  } catch (error) {
    if (error instanceof SessionEnded) return signIn();
    if (error instanceof Refused) return (end = { state: "refused", message: error.message }), queue.length || finish();
    if (!(error instanceof Offline)) throw error;
    outbox.tell("offline");
    return setTimeout(refill, 3000), queue.length || screen.wait();
  }
  if (outbox.state === "offline" && !outbox.waiting().length) outbox.tell("saved");
  const held = new Set(queue.map((task) => task.lease));
  const offered = reply.tasks ?? (reply.task ? [reply.task] : []);
  const until = Date.now() + 1000 * root.dataset.leaseS;
  const fresh = offered.filter((task) => !held.has(task.lease) && !done.has(task.lease));
  queue.push(...fresh.map((task) => ({ ...task, until })));
  end = { state: reply.state, message: reply.message };
  screen.progress(reply.progress, outbox.waiting().length);
  show();
  if (queue[1]) screen.prepare(queue[1]);
}

// After a long break somebody else may have been given what was fetched before: fetch again what is not begun.
function renew() {
  if (outbox.state === "offline" || document.querySelector("dialog[open]")) return;
  const begun = screen.rationale() || screen.flag() || pending;
  const kept = queue.filter((task, place) => task.until > Date.now() || (place === 0 && (begun || task.earlier)));
  if (kept.length === queue.length) return;
  queue = kept;
  if (queue[0]?.lease !== shown) shown = null;
  refill();
}

let asking = false;
async function signIn() {
  if (asking) return;
  asking = true;
  keepDraft();
  await ask.login(root.dataset.name, root.dataset.user);
  asking = false;
  outbox.tell("saved");
  refill();
}

outbox.addEventListener("change", ({ detail }) => {
  screen.connection(detail);
  if (detail.state === "signed-out") signIn();
  if (detail.state === "saved" && queue.length <= AHEAD) refill();
});
outbox.addEventListener("reply", ({ detail }) => detail.reply?.progress && screen.progress(detail.reply.progress, outbox.waiting().length));
outbox.addEventListener("refused", ({ detail }) => screen.refused(detail.error.message));
setInterval(() => !queue.length && !document.hidden && refill(), LOOK_AGAIN_MS);
setInterval(renew, 30_000);
addEventListener("focus", renew);
addEventListener("pagehide", () => (keepDraft(), keepHistory()));
document.addEventListener("visibilitychange", () => document.hidden && keepDraft());
screen.root.addEventListener("input", keepDraft);

const KEYS = {
  1: (event) => choose("left", event),
  2: (event) => choose("right", event),
  t: (event) => choose("tie", event),
  b: (event) => choose("both_bad", event),
  s: (event) => choose("skip", event),
  u: undo,
  f: () => flag(),
  g: () => panels.toggleGuide(),
  r: () => screen.focusReason(),
  "?": () => help(),
};

function choose(choice, event) {
  screen.press(choice);
  const much = event.shiftKey && (choice === "left" || choice === "right") && current()?.strength;
  vote(choice, { strength: much ? 3 : null, pressed: event.timeStamp });
}

async function flag() {
  if (!current()) return;
  const text = await ask.flag(screen.flag());
  if (text !== null) screen.setFlag(text), keepDraft();
}

const number = (event) => (event.code.match(/^(?:Digit|Numpad)([1-3])$/) ?? [])[1]; // Shift+1 is "!" on many keyboards

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.matches("textarea, input");
  if (typing) {
    if (event.key === "Escape") screen.stage.focus(), event.preventDefault();
    if (event.key === "Enter" && !event.shiftKey && pending) event.preventDefault(), vote(pending.choice, { ...pending, pressed: event.timeStamp });
    return;
  }
  if (pending && current()?.strength && pending.strength === undefined) {
    const strength = Number(number(event) ?? (event.key === "Enter" ? 2 : 0));
    if (strength) return event.preventDefault(), vote(pending.choice, { strength, pressed: event.timeStamp });
    if (event.key === "Escape") return (pending = null), screen.choices();
    return;
  }
  if (event.key === "Escape") return panels.close();
  if (event.key.toLowerCase() === "d") return event.preventDefault(), event.repeat || screen.differences(true);
  if (event.repeat) return;
  const act = KEYS[number(event) ?? event.key.toLowerCase()];
  if (act) event.preventDefault(), act(event);
});
addEventListener("keyup", (event) => event.key.toLowerCase() === "d" && screen.differences(false));
addEventListener("blur", () => screen.differences(false));

root.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { choice, strength, act } = button.dataset;
  if (choice) vote(choice, { pressed: event.timeStamp });
  if (strength && pending) vote(pending.choice, { strength: Number(strength), pressed: event.timeStamp });
  if (act) ({ undo, flag, guide: () => panels.toggleGuide(), help, cancel: () => ((pending = null), screen.choices()) })[act]?.();
});

drafts.forgetOld();
screen.connection({ state: outbox.state, waiting: outbox.waiting().length });
refill();
