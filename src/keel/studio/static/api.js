// The REST API over fetch. Errors come as three kinds, because the page treats them differently.
export class Offline extends Error {} // no answer, or the server is not well: try again later
export class SessionEnded extends Error {} // sign in again, then go on
export class Refused extends Error {
  // the server understood and said no; trying again would not help
  constructor(status, { message, hint, field } = {}) {
    super([message || `The server answered ${status}.`, hint].filter(Boolean).join(" "));
    this.status = status;
    this.field = field;
  }
}

const meta = document.querySelector('meta[name="keel-csrf"]');

export function setCsrf(token) {
  if (token && meta) meta.content = token;
}

export async function call(method, path, body) {
  let response;
  try {
    response = await fetch("/api/v1" + path, {
      method,
      credentials: "same-origin",
      keepalive: method !== "GET",
      headers: { "content-type": "application/json", "x-keel-csrf": meta?.content ?? "" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    throw new Offline(error.message);
  }
  if (response.ok) return response.status === 204 ? null : response.json();
  if (response.status === 401) throw new SessionEnded();
  if (response.status === 429 || response.status >= 500) throw new Offline(`status ${response.status}`);
  const told = await response.json().catch(() => ({}));
  throw new Refused(response.status, told.error);
}
