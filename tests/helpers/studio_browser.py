"""A studio that listens on a free port, and a real Chromium to look at it."""

import os
import shutil
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PASSWORD = "a long and lasting phrase"
LAN = "studio.lan"
"""A name for this machine that browsers do not trust as they trust localhost."""
QUIET = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--force-color-profile=srgb"]
QUIET += [f"--host-resolver-rules=MAP {LAN} 127.0.0.1"]


def chromium() -> str:
    """The system's browser; the test is skipped where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("KEEL_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium here: install one, or name it in KEEL_CHROMIUM")
    pytest.importorskip("playwright", reason="playwright's driver is not installed: pip install -e .[dev]")
    return found


@contextmanager
def browser():
    """A headless Chromium."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=QUIET)
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def serving(app):
    """The address under which the app answers, until the block ends."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@dataclass
class Studio:
    """A store, the studio over it and its address."""

    store: object
    url: str

    def user(self, name, *, admin=False):
        from keel.studio.auth import hash_password

        with self.store.writing() as tx:
            return tx.people.create_user(name, now=time.time(), admin=admin, password_hash=hash_password(PASSWORD))

    def project(self, name="helpdesk", *, state="open", pairs=40, **settings):
        """A project with `pairs` pairs and a guide; its settings leave no room for chance unless told."""
        from keel.store.rows import NewItem
        from keel.store.settings import ProjectSettings

        calm = {"overlap": 1, "golden_share": 0, "repeat_share": 0}
        with self.store.writing() as tx:
            made = tx.projects.create(
                name, "Help desk", ProjectSettings(**{**calm, **settings}), by=None, now=time.time()
            )
            tx.projects.new_guide(made.id, "# Be fair\n\nRead **both** answers.", by=None, now=time.time())
            news = [
                NewItem(prompt=f"Question {i}?", a=f"Answer a of {i}.", b=f"Answer b of {i}.") for i in range(pairs)
            ]
            tx.items.add(made.id, news, now=time.time())
            tx.projects.set_state(made.id, state)
            return tx.projects.get(made.id)

    def join(self, project, user, role="rater"):
        with self.store.writing() as tx:
            return tx.people.join(project.id, user.id, role, now=time.time())

    def votes(self, project, purposes=("judge",)):
        with self.store.reading() as tx:
            return list(tx.work.votes(project.id, purposes))


@contextmanager
def studio(folder: Path, **settings):
    from keel.store.store import Store
    from keel.studio.app import create_app
    from keel.studio.settings import StudioSettings

    with Store.open(folder / "studio.db") as store:
        app = create_app(store, StudioSettings(requests_per_s=1000, requests_burst=5000, **settings))
        with serving(app) as url:
            yield Studio(store, url)


def sign_in(context, url, name, then="/"):
    """A page of somebody who is signed in, through the form as people do it."""
    page = context.new_page()
    page.goto(f"{url}/login?next={then}")
    page.fill("#name", name)
    page.fill("#password", PASSWORD)
    page.click("button.primary")
    page.wait_for_url(f"{url}{then}")
    return page
