// Signing out of a device that others may use: votes that wait are sent first, then nothing of this person stays on it.
import { Outbox } from "./outbox.js";

const form = document.querySelector('form[action="/logout"]');
const mine = `keel:${form?.dataset.user}:`;
const PATIENCE_MS = 5000;
const keysOf = (storage) => Object.keys(storage).filter((key) => key.startsWith(mine));

// How many votes could not be sent.
async function sendAll() {
  const projects = new Set(keysOf(localStorage).filter((key) => key.includes(":op:")).map((key) => key.split(":")[2]));
  let left = 0;
  for (const project of projects) {
    const outbox = new Outbox(mine + project, `/projects/${encodeURIComponent(project)}`);
    const tooLong = new Promise((done) => setTimeout(done, PATIENCE_MS));
    await Promise.race([outbox.flush().catch(() => {}), tooLong]); // what was not sent still waits, whatever the reason
    left += outbox.waiting().length;
  }
  return left;
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const left = await sendAll();
  const told = `${left} of your votes could not be sent. They stay on this device until you sign in here again. Sign out all the same?`;
  if (left && !confirm(told)) return;
  for (const storage of [localStorage, sessionStorage]) {
    for (const key of keysOf(storage)) if (!key.includes(":op:")) storage.removeItem(key);
  }
  form.submit();
});
