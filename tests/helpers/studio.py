"""A studio in memory of the test: a real store, the real application, and people who talk to it over HTTP."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from keel.store.rows import NewItem
from keel.store.settings import ProjectSettings
from keel.store.store import Store
from keel.studio.app import create_app
from keel.studio.auth import hash_password, new_token, secret_hash
from keel.studio.settings import StudioSettings

PASSWORD = "a long and lasting phrase"
HASHED = hash_password(PASSWORD)
NOW = 1_700_000_000.0
ROLES = ("viewer", "rater", "senior", "lead")


class Person:
    """Somebody with an API token, or with a session where `login` was called."""

    def __init__(self, app: FastAPI, name: str, token: str | None = None) -> None:
        self.name, self.token = name, token
        self.http = TestClient(app, base_url="http://testserver", raise_server_exceptions=False)
        if token is not None:
            self.http.headers["authorization"] = f"Bearer {token}"

    def login(self, password: str = PASSWORD) -> "Person":
        self.http.headers.pop("authorization", None)
        reply = self.http.post("/api/v1/login", json={"name": self.name, "password": password})
        assert reply.status_code == 200, reply.text
        self.http.headers["x-keel-csrf"] = reply.json()["csrf"]
        return self

    def ask(self, method: str, path: str, body: Any = None, *, status: int | None = None, **more: Any) -> Any:
        """The JSON answer, whose status must be `status` or any of success."""
        reply = self.http.request(method, f"/api/v1{path}", json=body, **more)
        right = reply.is_success if status is None else reply.status_code == status
        assert right, f"{method} {path}: {reply.status_code} {reply.text}"
        return reply.json()

    def status(self, method: str, path: str, body: Any = None) -> int:
        return self.http.request(method, f"/api/v1{path}", json=body).status_code


class Studio:
    """A store with one open project `p`, an item list and one person of every kind."""

    def __init__(self, url: Path | str, settings: StudioSettings | None = None, **project: Any) -> None:
        self.store = Store.open(url)
        self.app = create_app(self.store, settings or StudioSettings(requests_per_s=1e6, requests_burst=10**6))
        self.tokens: dict[str, str] = {}
        with self.store.writing() as tx:
            admin = tx.people.create_user("admin", now=NOW, admin=True, password_hash=HASHED)
            self._token(tx, "admin", admin.id)
            self.project = tx.projects.create("p", "Project p", ProjectSettings(**project), by=None, now=NOW)
            tx.projects.new_guide(self.project.id, "# Guide\n\nBetter is better.", by=admin.id, now=NOW)
            tx.projects.set_state(self.project.id, "open")
            outsider = tx.people.create_user("outsider", now=NOW, password_hash=HASHED)
            self._token(tx, "outsider", outsider.id)
        for role in ROLES:
            self.add_member(role, role)

    def add_member(self, name: str, role: str = "rater") -> None:
        with self.store.writing() as tx:
            user = tx.people.create_user(name, now=NOW, password_hash=HASHED)
            member = tx.people.join(self.project.id, user.id, role, now=NOW)
            tx.people.unlock(self.project.id, [member.user_id], 1)
            self._token(tx, name, user.id)

    def add_items(self, items: Sequence[NewItem]) -> tuple[int, ...]:
        with self.store.writing() as tx:
            return tx.items.add(self.project.id, items, now=NOW).item_ids

    def person(self, name: str) -> Person:
        return Person(self.app, name, self.tokens[name])

    def stranger(self) -> Person:
        return Person(self.app, "stranger")

    def _token(self, tx: Any, name: str, user_id: int) -> None:
        self.tokens[name] = new_token()
        tx.access.create_token(user_id, "test", secret_hash(self.tokens[name]), now=NOW)


def pairs(count: int, **more: Any) -> list[NewItem]:
    return [
        NewItem(
            prompt=f"Question {n}?",
            a=f"Answer one to {n}.",
            b=f"Answer two to {n}.",
            provenance={"a": "generator-a", "b": "generator-b"},
            **more,
        )
        for n in range(count)
    ]
