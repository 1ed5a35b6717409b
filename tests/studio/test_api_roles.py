"""Every role at every endpoint: the access table is the API's, and the API keeps to it."""

import pytest
from helpers.studio import Studio, pairs

from keel.studio.api.access import ACCESS, CALLERS

BODIES = {
    ("POST", "/login"): {"name": "nobody", "password": "wrong wrong wrong"},
    ("POST", "/me/password"): {"current": "wrong", "new": "another long phrase"},
    ("POST", "/tokens"): {"name": "walk"},
    ("POST", "/users"): {"name": "x" * 101},
    ("PATCH", "/users/{id}"): {},
    ("POST", "/projects"): {"name": "Not A Name", "title": "x"},
    ("PATCH", "/projects/{p}"): {},
    ("POST", "/projects/{p}/state"): {"state": "open", "override": "for the walk"},
    ("POST", "/projects/{p}/guide"): {"text": "# Guide"},
    ("PUT", "/projects/{p}/items/{id}/gold"): {"gold": None},
    ("POST", "/projects/{p}/judgments"): {"lease": 999, "choice": "left", "client_key": "walk-walk"},
    ("POST", "/projects/{p}/undo"): {"client_key": "walk-walk"},
    ("POST", "/projects/{p}/disputes/{item}/settle"): {"choice": "a"},
    ("POST", "/projects/{p}/members"): {"name": "nobody"},
    ("PATCH", "/projects/{p}/members/{pseudonym}"): {},
    ("POST", "/projects/{p}/invites"): {},
    ("POST", "/projects/{p}/snapshots"): {"name": "walk"},
}
REFUSED = (401, 403, 404)
OPEN_TO_ALL_SIGNED_IN = {"/logout", "/me", "/me/password", "/tokens", "/tokens/{id}", "/projects"}


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    studio = Studio(tmp_path_factory.mktemp("roles") / "studio.sqlite")
    studio.add_items(pairs(3))
    return studio


def test_the_table_has_a_row_for_every_endpoint_and_no_other(studio):
    offered = {
        (method.upper(), path.removeprefix("/api/v1"))
        for path, methods in studio.app.openapi()["paths"].items()
        for method in methods
    }
    assert offered == set(ACCESS)


def test_every_row_names_known_callers():
    assert all(allowed and allowed <= set(CALLERS) for allowed in ACCESS.values())


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("method", "path"), sorted(ACCESS), ids=lambda part: part)
def test_an_endpoint_lets_in_whom_the_table_names_and_nobody_else(studio, method, path, caller):
    person = studio.stranger() if caller == "stranger" else studio.person(caller)
    filled = path.format(p="p", id=999_999, item=999_999, n=999, pseudonym="nobody-here", name="nosuch", token="x" * 43)
    reply = person.http.request(method, f"/api/v1{filled}", json=BODIES.get((method, path)))
    told = reply.json().get("error", {}).get("message", "") if reply.status_code >= 400 else ""
    if caller in ACCESS[method, path]:
        by_rule = "You are not signed in" in told or told.startswith(("This is for", "Whoever judges is"))
        assert reply.status_code < 500
        assert not by_rule, told
        assert "no such project" not in told
    else:
        expected = 401 if caller == "stranger" else 404 if caller == "outsider" and "{p}" in path else 403
        assert reply.status_code == expected, told


@pytest.mark.parametrize("path", ["/projects/elsewhere", "/projects/p/items/1/gold"])
def test_an_unknown_project_and_one_of_others_look_the_same(studio, path):
    outsider = studio.person("outsider")
    method = "PUT" if path.endswith("gold") else "GET"
    own = outsider.http.request(method, f"/api/v1{path}", json={"gold": "a"})
    unknown = outsider.http.request(method, f"/api/v1{path.replace('/p/', '/zzz/')}", json={"gold": "a"})
    assert own.status_code == unknown.status_code == 404
    assert own.json() == unknown.json()


def test_an_admin_leads_every_project_but_judges_only_as_a_member(studio):
    admin = studio.person("admin")
    assert admin.ask("GET", "/projects/p/members")
    assert "Join the project" in admin.ask("POST", "/projects/p/next", {}, status=403)["error"]["message"]
    studio.person("lead").ask("POST", "/projects/p/members", {"name": "admin", "role": "rater"})
    try:
        assert admin.ask("POST", "/projects/p/next", {})["task"]
        assert admin.ask("GET", "/projects/p/members")
    finally:
        pseudonym = admin.ask("GET", "/projects/p")["pseudonym"]
        admin.ask("DELETE", f"/projects/p/members/{pseudonym}")


def test_a_change_of_role_counts_at_once(studio):
    lead, rater = studio.person("lead"), studio.person("rater")
    rater.ask("GET", "/projects/p/items", status=403)
    pseudonym = rater.ask("GET", "/projects/p")["pseudonym"]
    lead.ask("PATCH", f"/projects/p/members/{pseudonym}", {"role": "senior"})
    rater.ask("GET", "/projects/p/items")
    lead.ask("PATCH", f"/projects/p/members/{pseudonym}", {"role": "rater"})
    rater.ask("GET", "/projects/p/items", status=403)
