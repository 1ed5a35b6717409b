"""Pairs into a studio's project: straight into its database, or over HTTP with an API token. No torch here."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keel.core.errors import ConfigError, EndpointError
from keel.stages.address import NoRedirect
from keel.stages.collect import project_of
from keel.stages.pairing import CandidatePair
from keel.stages.place import Place
from keel.stages.studio_snapshots import opened
from keel.store.rows import NewItem

AT_ONCE = 500
"""Items of one request."""
TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """What came of a delivery."""

    added: int
    known: int
    """Pairs that were there before; nobody is asked twice."""


def deliver(
    pairs: Sequence[CandidatePair], place: Place, *, token_env: str | None = None, priority: float = 0.0
) -> Delivered:
    """Put pairs before the raters of a project. Delivered again, they are known; so whatever breaks off is repeated."""
    if place.snapshot is not None:
        raise ConfigError(f"{place}: a snapshot never changes. Give the project alone, without @.")
    if place.served:
        return _sent(pairs, place, token_env, priority)
    with opened(place) as store:
        now = store.clock()
        with store.writing() as tx:
            project = project_of(tx, place.project)
            added = tx.items.add(project.id, [as_item(pair, priority) for pair in pairs], now=now)
            tx.audit.add("import", at=now, project_id=project.id, details={"added": added.added, "by": "keel sample"})
    return Delivered(added=added.added, known=added.already_there)


def as_item(pair: CandidatePair, priority: float = 0.0) -> NewItem:
    """A pair as the studio stores it; what raters see holds nothing of its provenance."""
    return NewItem(
        prompt=pair.prompt,
        a=pair.a.text,
        b=pair.b.text,
        priority=priority,
        provenance=pair.to_values()["provenance"],
    )


def _sent(pairs: Sequence[CandidatePair], place: Place, token_env: str | None, priority: float) -> Delivered:
    token = os.environ.get(token_env or "", "").strip()
    if not token:
        raise ConfigError(
            f"{place}: a studio wants an API token. Make one on its account page, export it, and name the variable: "
            "--token-env KEEL_TOKEN."
        )
    address = f"{place.studio.rstrip('/')}/api/v1/projects/{place.project}/items"
    added = known = 0
    for start in range(0, len(pairs), AT_ONCE):
        rows = [{**pair.to_values(), "priority": priority} for pair in pairs[start : start + AT_ONCE]]
        answer = _post(address, "".join(json.dumps(row) + "\n" for row in rows).encode(), token)
        added, known = added + int(answer["added"]), known + int(answer["already_there"])
    return Delivered(added=added, known=known)


def _post(address: str, body: bytes, token: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-ndjson", "Accept": "application/json"}
    request = urllib.request.Request(address, body, headers, method="POST")
    again = "Give the same command again: answers are kept, and pairs that arrived are known."
    try:
        with urllib.request.build_opener(NoRedirect).open(request, timeout=TIMEOUT_S) as response:
            found = json.loads(response.read(2**20))
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(65536).decode("utf-8", "replace")
        try:
            said = json.loads(said)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            said = said[:200]
        raise EndpointError(f"{address}: the studio refuses with HTTP {error.code}: {said}") from error
    except (OSError, ValueError) as error:
        raise EndpointError(f"{address}: no studio answers there ({error}). {again}") from error
    if not isinstance(found, dict) or not {"added", "already_there"} <= found.keys():
        raise EndpointError(f"{address}: what answers there is no studio. {again}")
    return found
