// Votes on their way. Each is written to localStorage before anything else happens, under a key of its own, so that two
// tabs never overwrite each other; it leaves storage only when the server has acknowledged or refused it. The server
// takes a client_key once, so sending twice does no harm.
import { Offline, Refused, SessionEnded, call } from "./api.js";

// The next pair is painted first; sending can wait a few milliseconds, and what is to be sent is in storage already.
export function afterPaint(act) {
  if (document.hidden) return act(); // hidden pages paint nothing
  requestAnimationFrame(() => setTimeout(act));
}

const RETRY_MS = [500, 1000, 2000, 5000, 10000];

export class Outbox extends EventTarget {
  constructor(prefix, path) {
    super();
    this.prefix = prefix + ":op:";
    this.path = path;
    this.sending = null; // client_key of the one in flight
    this.state = "saved"; // saved | sending | offline | signed-out
    this.failures = 0;
    addEventListener("online", () => this.flush());
    addEventListener("storage", (event) => event.key?.startsWith(this.prefix) && this.tell());
  }

  waiting() {
    const keys = Object.keys(localStorage).filter((key) => key.startsWith(this.prefix));
    return keys.sort().map((key) => JSON.parse(localStorage.getItem(key)));
  }

  add(kind, body) {
    const last = Number(localStorage.getItem(this.prefix.replace(":op:", ":order")) || 0);
    const order = Math.max(Date.now(), last + 1); // the clock may step back; the order may not
    localStorage.setItem(this.prefix.replace(":op:", ":order"), order);
    const id = `${String(order).padStart(15, "0")}-${body.client_key}-${kind}`;
    localStorage.setItem(this.prefix + id, JSON.stringify({ id, kind, body }));
    this.tell();
    afterPaint(() => this.flush());
  }

  // Takes back what has not been sent yet; false where it is gone or on its way.
  drop(clientKey) {
    if (this.sending === clientKey) return false;
    const found = this.waiting().find((op) => op.kind === "judgments" && op.body.client_key === clientKey);
    if (found) this.remove(found);
    return Boolean(found);
  }

  remove(op) {
    localStorage.removeItem(this.prefix + op.id);
    this.tell();
  }

  tell(state = this.state) {
    this.state = state;
    this.dispatchEvent(new CustomEvent("change", { detail: { state, waiting: this.waiting().length } }));
  }

  // One sender at a time, over all tabs where the browser has locks.
  flush() {
    clearTimeout(this.timer);
    if (this.running) return this.running;
    // browsers have locks on https and localhost only; sending begins in a later turn either way, once `running` is set
    const begun = navigator.locks ? navigator.locks.request(this.prefix, () => this.send()) : Promise.resolve().then(() => this.send());
    this.running = begun.finally(() => {
      this.running = null;
      if (this.state === "saved" && this.waiting().length) this.flush();
    });
    return this.running;
  }

  async send() {
    for (let op = this.waiting()[0]; op; op = this.waiting()[0]) {
      this.sending = op.body.client_key;
      if (this.state === "saved") this.tell("sending");
      try {
        const reply = await call("POST", `${this.path}/${op.kind}`, op.body);
        this.failures = 0;
        this.state = "sending";
        this.remove(op);
        this.dispatchEvent(new CustomEvent("reply", { detail: { op, reply } }));
      } catch (error) {
        if (error instanceof Refused) {
          this.remove(op);
          this.dispatchEvent(new CustomEvent("refused", { detail: { op, error } }));
          continue;
        }
        if (error instanceof SessionEnded) return this.tell("signed-out");
        if (!(error instanceof Offline)) throw error;
        this.timer = setTimeout(() => this.flush(), RETRY_MS[Math.min(this.failures++, RETRY_MS.length - 1)]);
        return this.tell("offline");
      } finally {
        this.sending = null;
      }
    }
    this.tell("saved");
  }
}
