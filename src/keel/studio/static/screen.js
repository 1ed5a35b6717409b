// What stands on the rater's screen. Prompts and answers arrive as HTML that the server made safe; their plain text is
// only ever set as text.
import { diff, marked } from "./worddiff.js";

const WORDS = { left: "answer 1", right: "answer 2", tie: "a tie", both_bad: "both bad", skip: "skipped" };
const LONG_PROMPT_PX = 260;

const PURPOSES = {
  calibration: "Calibration: everybody judges the same pairs, each alone. Take your time.",
  adjudicate: "Raters disagree on this pair. Your vote settles it.",
};

const ENDS = {
  open: ["You are all caught up", "There is nothing left for you to judge at the moment. New pairs appear here by themselves."],
  calibrating: ["Your part of this round is done", "When everybody has finished, the lead looks at how far you agree. You will see the next pairs here."],
  setup: ["Not started yet", "The lead is still preparing this project. Pairs will appear here by themselves."],
  paused: ["The project is paused", "Nothing you did is lost. Pairs appear here again when the lead goes on."],
  closed: ["The project is finished", "Thank you: every vote has been counted."],
  refused: ["There is nothing to judge here", ""],
};

export class Screen {
  constructor(root) {
    this.root = root;
    this.stage = root.querySelector(".stage");
    this.live = root.querySelector("[data-live]");
    this.strips = root.querySelector(".strips");
    this.bars = { main: root.querySelector("[data-bar=main]"), strength: root.querySelector("[data-bar=strength]") };
    this.templates = Object.fromEntries(["pair", "end"].map((name) => [name, document.getElementById(name)]));
    this.prepared = new Map(); // lease -> DOM, built while the rater reads the pair before
  }

  prepare(task) {
    if (this.prepared.has(task.lease)) return this.prepared.get(task.lease);
    const pair = this.templates.pair.content.firstElementChild.cloneNode(true);
    for (const part of ["prompt", "left", "right"]) {
      const body = pair.querySelector(`[data-body=${part}]`);
      body.innerHTML = task[`${part}_html`]; // made safe by the server
      for (const wide of body.querySelectorAll("pre, table")) wide.tabIndex = 0; // can be scrolled by keyboard
    }
    pair.querySelector(".why").hidden = task.rationale === "off";
    const asked = pair.querySelector("[data-why]");
    asked.textContent = task.rationale === "required" ? "Why? One sentence is enough" : "Why? (optional)";
    if (this.prepared.size > 8) this.prepared.clear();
    this.prepared.set(task.lease, pair);
    return pair;
  }

  show(task, draft) {
    const pair = this.prepare(task);
    this.prepared.delete(task.lease);
    this.task = task;
    this.runs = null;
    this.stage.replaceChildren(pair);
    this.stage.scrollTop = 0;
    this.strip("said", null);
    this.stage.setAttribute("aria-busy", "false");
    const prompt = pair.querySelector(".prompt");
    if (prompt.offsetHeight > LONG_PROMPT_PX) {
      prompt.classList.add("long");
      const more = pair.querySelector("[data-more]");
      more.hidden = false;
      more.onclick = () => (more.textContent = prompt.classList.toggle("open") ? "Show less" : "Show the whole prompt");
    }
    const area = pair.querySelector("textarea");
    area.value = draft.rationale ?? "";
    this.setFlag(draft.flag ?? "");
    this.bars.main.querySelector("[data-choice=tie]").hidden = task.ties === false;
    this.bars.main.querySelector("[data-choice=both_bad]").hidden = task.both_bad === false;
    this.choices(task.earlier?.choice);
    this.round(task);
    if (!this.stage.contains(document.activeElement) && !document.querySelector("dialog[open]")) this.stage.focus({ preventScroll: true });
  }

  choices(earlier) {
    this.bars.main.hidden = false;
    this.bars.strength.hidden = true;
    for (const button of this.bars.main.querySelectorAll("[data-choice]")) {
      button.setAttribute("aria-pressed", String(button.dataset.choice === earlier));
    }
    for (const side of ["left", "right"]) {
      const answer = this.stage.querySelector(`.answer[data-side=${side}]`);
      answer?.classList.toggle("chosen", earlier === side);
      if (answer) answer.querySelector(".was").hidden = earlier !== side || earlier !== this.task.earlier?.choice;
    }
    this.stage.querySelector(".why")?.classList.remove("asked");
  }

  askStrength(choice) {
    this.choices(choice);
    this.bars.main.hidden = true;
    this.bars.strength.hidden = false;
    this.bars.strength.querySelector("[data-how]").textContent = `How much better is ${WORDS[choice]}?`;
    this.say(`How much better is ${WORDS[choice]}? 1 slightly, 2 clearly, 3 much. Escape goes back.`);
  }

  askReason(choice) {
    this.choices(choice);
    this.stage.querySelector(".why").classList.add("asked");
    this.focusReason();
    this.say("This round asks for a reason. Write one sentence, then press Enter.", true);
  }

  focusReason() {
    const area = this.stage.querySelector(".why:not([hidden]) textarea");
    area?.focus();
    area?.scrollIntoView({ block: "nearest" });
  }

  rationale() {
    return this.stage.querySelector("textarea")?.value.trim() ?? "";
  }

  flag() {
    return this.stage.querySelector("[data-flag]")?.textContent ?? "";
  }

  setFlag(text) {
    const pill = this.stage.querySelector("[data-flag]");
    pill.textContent = text;
    pill.parentElement.hidden = !text;
  }

  differences(on) {
    for (const side of ["left", "right"]) {
      const answer = this.stage.querySelector(`.answer[data-side=${side}]`);
      if (!answer) return;
      const plain = answer.querySelector(".plain");
      if (on && !plain.firstChild) {
        this.runs ??= diff(this.task.left_text, this.task.right_text);
        plain.append(marked(this.runs[side === "left" ? 0 : 1]));
      }
      plain.hidden = !on;
      answer.querySelector(".prose").hidden = on;
    }
  }

  press(choice) {
    const button = this.bars.main.querySelector(`[data-choice=${choice}]`);
    button.classList.add("pressed");
    setTimeout(() => button.classList.remove("pressed"), 140);
  }

  round(task) {
    const text = PURPOSES[task.purpose];
    this.strip("round", text ? { text } : null);
  }

  strip(name, content) {
    let strip = this.strips.querySelector(`[data-strip=${name}]`);
    if (!content) return strip?.remove();
    if (strip?.firstChild.textContent === content.text) return;
    strip?.remove();
    strip = document.createElement("div");
    strip.className = `strip ${content.kind ?? ""}`;
    strip.dataset.strip = name;
    strip.setAttribute("role", "status");
    const text = document.createElement("span");
    text.textContent = content.text;
    strip.append(text);
    if (content.dismiss) {
      const button = document.createElement("button");
      button.textContent = "Understood";
      button.onclick = () => strip.remove();
      strip.append(button);
    }
    this.strips.append(strip);
  }

  connection({ state, waiting }) {
    const saved = this.root.querySelector(".saved");
    saved.dataset.state = state;
    const votes = waiting === 1 ? "1 vote" : `${waiting} votes`;
    saved.querySelector("span").textContent = waiting ? `${waiting} waiting` : state === "offline" ? "Offline" : "Saved";
    saved.title = waiting ? `${votes} kept on this device, not yet sent` : "Every vote is on the server";
    const kept = waiting ? `${votes} kept on this device and sent when it is back.` : "Everything is saved.";
    this.strip("connection", state === "offline" ? { kind: "warn", text: `No connection. You can go on: ${kept}` } : null);
  }

  refused(message) {
    this.strip("refused", { kind: "bad", text: `One vote was not taken. ${message}`, dismiss: true });
  }

  progress(progress, waiting = 0) {
    if (!progress) return;
    this.counts = { ...progress, done: progress.done + waiting, today: progress.today + waiting, left: Math.max(0, progress.left - waiting) };
    this.drawProgress();
  }

  counted(change) {
    if (!this.counts) return;
    const { done, left, today } = this.counts;
    this.counts = { done: done + change, left: Math.max(0, left - change), today: Math.max(0, today + change) };
    this.drawProgress();
  }

  drawProgress() {
    const { done, left, today } = this.counts;
    const bar = this.root.querySelector(".track");
    bar.querySelector("i").style.setProperty("--part", done / Math.max(1, done + left));
    bar.setAttribute("aria-valuenow", done);
    bar.setAttribute("aria-valuemax", done + left);
    this.root.querySelector("[data-today]").textContent = today;
    this.root.querySelector("[data-done]").textContent = done;
    this.root.querySelector("[data-all]").textContent = done + left;
  }

  finish({ state, message }) {
    const [title, text] = ENDS[state] ?? ENDS.open;
    const page = this.templates.end.content.firstElementChild.cloneNode(true);
    page.querySelector("h1").textContent = title;
    page.querySelector("p").textContent = message || text;
    if (this.stage.querySelector("h1")?.textContent !== title) this.stage.replaceChildren(page);
    this.bars.main.hidden = this.bars.strength.hidden = true;
    this.strip("round", null);
    this.stage.setAttribute("aria-busy", "false");
  }

  wait() {
    this.bars.main.hidden = true;
  }

  word(choice) {
    return WORDS[choice];
  }

  say(text, seen = false) {
    this.live.textContent = text;
    if (!seen) return;
    this.strip("said", { text });
    setTimeout(() => this.strip("said", null), 4000);
  }
}
