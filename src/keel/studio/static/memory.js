// What the page remembers of a pair through a refresh: the half-written reason, a flag and the time spent on it.
export class Drafts {
  constructor(prefix) {
    this.prefix = prefix + ":draft:";
  }

  get(lease) {
    return JSON.parse(localStorage.getItem(this.prefix + lease) ?? "{}");
  }

  set(lease, change) {
    localStorage.setItem(this.prefix + lease, JSON.stringify({ ...this.get(lease), ...change, at: Date.now() }));
  }

  clear(lease) {
    localStorage.removeItem(this.prefix + lease);
  }

  forgetOld(days = 7) {
    for (const key of Object.keys(localStorage).filter((key) => key.startsWith(this.prefix))) {
      if (JSON.parse(localStorage.getItem(key)).at < Date.now() - days * 864e5) localStorage.removeItem(key);
    }
  }
}

// Seconds looked at, not counting the time the tab was hidden.
export class Stopwatch {
  constructor() {
    this.spent = 0;
    this.since = null;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.pause() : this.resume()));
  }

  restart(spent = 0) {
    this.spent = spent;
    this.since = document.hidden ? null : performance.now();
  }

  pause() {
    this.spent = this.seconds();
    this.since = null;
  }

  resume() {
    this.since ??= performance.now();
  }

  seconds() {
    return this.spent + (this.since === null ? 0 : (performance.now() - this.since) / 1000);
  }
}
