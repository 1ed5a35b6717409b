// What makes the leads' pages pleasanter; every form works without it.
import "./leave.js";

// A refusal is told beside the form, and nothing typed is lost.
for (const form of document.querySelectorAll("form[data-live]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.submitter;
    const told = form.querySelector("[data-told]");
    const data = new FormData(form, button);
    const body = form.enctype === "multipart/form-data" ? data : new URLSearchParams(data);
    if (button) button.disabled = true;
    try {
      const answer = await fetch(form.action, { method: "POST", body, headers: { "x-keel-live": "1" } });
      const then = answer.headers.get("x-keel-then");
      if (then) return location.assign(then);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      told.textContent = page.querySelector("[data-told]")?.textContent ?? `The server answered ${answer.status}.`;
    } catch {
      told.textContent = "No connection. Nothing is lost: try again in a moment.";
    }
    told.hidden = false;
    told.scrollIntoView({ block: "center" });
    if (button) button.disabled = false;
  });
}

for (const form of document.querySelectorAll("form[data-ask]")) {
  form.addEventListener("submit", (event) => confirm(form.dataset.ask) || event.preventDefault());
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const field = document.getElementById(button.dataset.copy);
    field.select();
    if (navigator.clipboard) await navigator.clipboard.writeText(field.value);
    else document.execCommand("copy"); // http without TLS has no clipboard
    button.textContent = "Copied";
  });
}

for (const zone of document.querySelectorAll(".drop")) {
  const input = zone.querySelector("input[type=file]");
  const over = (event) => (event.preventDefault(), zone.classList.add("over"));
  zone.addEventListener("dragover", over);
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    input.files = event.dataTransfer.files;
  });
}

// The guide as raters see it, made by the server, which alone decides what is safe.
for (const area of document.querySelectorAll("[data-preview]")) {
  const place = document.querySelector("[data-preview-here]");
  let timer;
  area.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const body = new URLSearchParams({ text: area.value, csrf: area.form.elements.csrf.value });
      const answer = await fetch(area.dataset.preview, { method: "POST", body }).catch(() => null);
      if (answer?.ok) place.innerHTML = await answer.text();
    }, 250);
  });
}
