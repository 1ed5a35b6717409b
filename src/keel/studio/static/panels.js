// The guide beside the pair, and the dialogs: help, flag, signing in again.
import { Offline, Refused, call, setCsrf } from "./api.js";

export class Panels {
  constructor(prefix, screen) {
    this.key = prefix + ":guide";
    this.guide = document.querySelector(".guide");
    this.button = document.querySelector("[data-act=guide]");
    this.screen = screen;
    this.version = Number(this.guide.dataset.version);
    this.guide.querySelector("[data-close]").addEventListener("click", () => this.toggleGuide(false));
    const wide = matchMedia("(min-width: 1101px)").matches;
    this.toggleGuide(wide && localStorage.getItem(this.key) === "open", false);
  }

  toggleGuide(open = this.guide.hidden, keep = true) {
    this.guide.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
    if (keep) localStorage.setItem(this.key, open ? "open" : "closed");
  }

  close() {
    if (matchMedia("(max-width: 1100px)").matches) this.toggleGuide(false);
  }

  async guideChanged(version) {
    if (!version || version === this.version) return;
    const response = await fetch(location.pathname + "/guide").catch(() => null); // without a connection: next time
    if (!response?.ok) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html").querySelector(".prose");
    this.guide.querySelector(".prose").replaceWith(fresh); // our own page, made safe by the server
    this.version = version;
    this.guide.querySelector("[data-version-shown]").textContent = `version ${version}`;
    this.screen.strip("guide", { text: `The guide has changed: version ${version}. Press G to read it.`, dismiss: true });
  }
}

function open(name) {
  const dialog = document.getElementById(name);
  dialog.returnValue = "";
  if (!dialog.open) dialog.showModal();
  return dialog;
}

const closed = (dialog) => new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true }));

export const help = () => open("help");

export const ask = {
  // The text of the flag, "" to remove it, null where nothing changes.
  async flag(now) {
    const dialog = open("flagging");
    const text = dialog.querySelector("textarea");
    text.value = now;
    dialog.querySelector("[value=remove]").hidden = !now;
    const reasons = [...dialog.querySelectorAll("[data-reason]")];
    const pick = (button) => ((text.value = button.textContent.replace(/^\d\s*/, "").trim()), dialog.close("set"));
    for (const button of reasons) button.onclick = () => pick(button);
    dialog.onkeydown = (event) => {
      if (event.target === text) {
        if (event.key === "Enter" && !event.shiftKey) event.preventDefault(), dialog.close("set");
      } else if (reasons[event.key - 1]) event.preventDefault(), pick(reasons[event.key - 1]);
    };
    reasons[0].focus();
    const value = await closed(dialog);
    return value === "set" ? text.value.trim() : value === "remove" ? "" : null;
  },

  // Signs the same person in again, in place; somebody else gets a page of their own.
  async login(name, user) {
    const dialog = open("signing-in");
    dialog.oncancel = (event) => event.preventDefault();
    const form = dialog.querySelector("form");
    const told = dialog.querySelector("[data-told]");
    form.elements.name.value = name;
    form.elements.password.focus();
    await new Promise((resolve) => {
      form.onsubmit = async (event) => {
        event.preventDefault();
        try {
          const reply = await call("POST", "/login", { name: form.elements.name.value, password: form.elements.password.value });
          if (String(reply.user?.id ?? reply.id ?? user) !== user) return location.reload();
          setCsrf(reply.csrf);
          resolve();
        } catch (error) {
          told.textContent = error instanceof Refused ? error.message : error instanceof Offline ? "No connection. Try again in a moment." : "Name or password is wrong.";
          told.hidden = false;
        }
      };
    });
    form.reset();
    told.hidden = true;
    dialog.close();
  },
};
