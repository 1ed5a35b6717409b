"""Who may call what: one row for every endpoint. An endpoint without a row lets nobody in.

An admin of the installation may do in every project what its lead may, except judge: whoever judges is a member, with a
pseudonym. Of a project that somebody has nothing to do with, they learn nothing, not even that it exists (404).
"""

from typing import Literal, TypeAlias

Caller: TypeAlias = Literal["stranger", "outsider", "viewer", "rater", "senior", "lead", "admin"]
"""What somebody is to an endpoint. A stranger is not signed in, an outsider is no member of the project; admin is an
admin of the installation who is no member."""

CALLERS: tuple[Caller, ...] = ("stranger", "outsider", "viewer", "rater", "senior", "lead", "admin")

ANYONE: frozenset[Caller] = frozenset(CALLERS)
SIGNED_IN: frozenset[Caller] = ANYONE - {"stranger"}
ADMIN: frozenset[Caller] = frozenset({"admin"})
MEMBERS: frozenset[Caller] = frozenset({"viewer", "rater", "senior", "lead", "admin"})
JUDGES: frozenset[Caller] = frozenset({"rater", "senior", "lead"})
FIGURES: frozenset[Caller] = frozenset({"viewer", "senior", "lead", "admin"})
"""Those who see how raters agree, under pseudonyms. A rater does not: others' votes would show through."""
SENIORS: frozenset[Caller] = frozenset({"senior", "lead", "admin"})
LEADS: frozenset[Caller] = frozenset({"lead", "admin"})

ACCESS: dict[tuple[str, str], frozenset[Caller]] = {
    ("POST", "/login"): ANYONE,
    ("GET", "/invites/{token}"): ANYONE,
    ("POST", "/invites/{token}/accept"): ANYONE,
    ("POST", "/logout"): SIGNED_IN,
    ("GET", "/me"): SIGNED_IN,
    ("POST", "/me/password"): SIGNED_IN,
    ("GET", "/tokens"): SIGNED_IN,
    ("POST", "/tokens"): SIGNED_IN,
    ("DELETE", "/tokens/{id}"): SIGNED_IN,
    ("GET", "/users"): ADMIN,
    ("POST", "/users"): ADMIN,
    ("PATCH", "/users/{id}"): ADMIN,
    ("POST", "/users/{id}/erase"): ADMIN,
    ("GET", "/audit"): ADMIN,
    ("GET", "/projects"): SIGNED_IN,
    ("POST", "/projects"): ADMIN,
    ("GET", "/projects/{p}"): MEMBERS,
    ("PATCH", "/projects/{p}"): LEADS,
    ("POST", "/projects/{p}/state"): LEADS,
    ("GET", "/projects/{p}/guide"): MEMBERS,
    ("POST", "/projects/{p}/guide"): LEADS,
    ("GET", "/projects/{p}/items"): SENIORS,
    ("POST", "/projects/{p}/items"): LEADS,
    ("DELETE", "/projects/{p}/items/{id}"): LEADS,
    ("PUT", "/projects/{p}/items/{id}/gold"): SENIORS,
    ("POST", "/projects/{p}/next"): JUDGES,
    ("POST", "/projects/{p}/judgments"): JUDGES,
    ("POST", "/projects/{p}/undo"): JUDGES,
    ("POST", "/projects/{p}/release"): JUDGES,
    ("GET", "/projects/{p}/progress"): MEMBERS,
    ("GET", "/projects/{p}/agreement"): FIGURES,
    ("GET", "/projects/{p}/forecast"): FIGURES,
    ("GET", "/projects/{p}/budget"): FIGURES,
    ("GET", "/projects/{p}/golden"): LEADS,
    ("GET", "/projects/{p}/raters"): LEADS,
    ("GET", "/projects/{p}/raters/{pseudonym}"): LEADS,
    ("GET", "/projects/{p}/disputes"): SENIORS,
    ("POST", "/projects/{p}/disputes/{item}/settle"): SENIORS,
    ("GET", "/projects/{p}/rounds"): FIGURES,
    ("GET", "/projects/{p}/rounds/next"): FIGURES,
    ("POST", "/projects/{p}/rounds"): LEADS,
    ("POST", "/projects/{p}/rounds/{n}/close"): LEADS,
    ("GET", "/projects/{p}/members"): LEADS,
    ("POST", "/projects/{p}/members"): LEADS,
    ("PATCH", "/projects/{p}/members/{pseudonym}"): LEADS,
    ("DELETE", "/projects/{p}/members/{pseudonym}"): LEADS,
    ("GET", "/projects/{p}/invites"): LEADS,
    ("POST", "/projects/{p}/invites"): LEADS,
    ("DELETE", "/projects/{p}/invites/{id}"): LEADS,
    ("GET", "/projects/{p}/audit"): LEADS,
    ("GET", "/projects/{p}/snapshots"): FIGURES,
    ("POST", "/projects/{p}/snapshots"): LEADS,
    ("GET", "/projects/{p}/snapshots/{name}/download"): LEADS,
    ("GET", "/projects/{p}/export"): LEADS,
}
"""(method, path below /api/v1) -> who may. `{p}` is a project's name."""
