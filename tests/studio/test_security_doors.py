"""Who gets in and how: passwords, sessions, CSRF, tokens, invitations, limits, and being forgotten."""

import time

import pytest
from helpers.studio import PASSWORD, Studio, pairs

from keel.studio import auth
from keel.studio.auth import RateLimiter, hash_password, password_matches
from keel.studio.settings import StudioSettings


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    studio = Studio(tmp_path_factory.mktemp("doors") / "studio.sqlite")
    studio.add_items(pairs(3))
    return studio


def test_passwords_are_hashed_by_argon2id_each_with_its_own_salt():
    first, second = hash_password(PASSWORD), hash_password(PASSWORD)
    assert first.startswith("$argon2id$")
    assert first != second
    assert password_matches(PASSWORD, first)
    assert not password_matches(PASSWORD + " ", first)
    assert not password_matches(PASSWORD, None)
    assert not password_matches(PASSWORD, "no hash at all")


def test_nothing_that_opens_a_door_is_stored_in_plain(studio):
    person = studio.person("rater").login()
    token = person.ask("POST", "/tokens", {"name": "secret"})["token"]
    session = person.http.cookies[auth.SESSION_COOKIE]
    invite = studio.person("lead").ask("POST", "/projects/p/invites", {})["token"]
    with studio.store.reading() as tx:
        rows = [str(tuple(row)) for table in ("users", "tokens", "sessions", "invites") for row in tx.rows(_all(table))]
    assert rows
    assert not [secret for secret in (token, session, invite, PASSWORD) if any(secret in row for row in rows)]


def _all(table):
    from sqlalchemy import text

    return text(f"SELECT * FROM {table}")


def test_a_session_lives_in_a_cookie_that_scripts_cannot_read(studio):
    reply = studio.person("rater").http.post("/api/v1/login", json={"name": "rater", "password": PASSWORD})
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie  # over plain HTTP on this machine the browser would drop it


def test_behind_tls_cookies_are_secure(tmp_path):
    studio = Studio(tmp_path / "studio.sqlite", StudioSettings(public_url="https://studio.example.org"))
    reply = studio.stranger().http.post("/api/v1/login", json={"name": "rater", "password": PASSWORD})
    assert "Secure" in reply.headers["set-cookie"]
    assert "max-age" in reply.headers["strict-transport-security"]


def test_a_session_changes_nothing_without_its_csrf_token(studio):
    person = studio.person("lead").login()
    right = person.http.headers.pop("x-keel-csrf")
    person.ask("GET", "/me")
    assert person.status("PATCH", "/projects/p", {"title": "taken over"}) == 403
    person.http.headers["x-keel-csrf"] = "0" * 32
    assert person.status("PATCH", "/projects/p", {"title": "taken over"}) == 403
    person.http.headers["x-keel-csrf"] = studio.person("rater").login().http.headers["x-keel-csrf"]
    assert person.status("PATCH", "/projects/p", {"title": "taken over"}) == 403
    person.http.headers["x-keel-csrf"] = right
    assert person.ask("PATCH", "/projects/p", {"title": "Project p"})


def test_a_form_of_another_site_cannot_post(studio):
    person = studio.person("lead").login()
    reply = person.http.post(
        "/api/v1/projects/p/state",
        content='{"state": "closed"}',
        headers={"content-type": "text/plain", "x-keel-csrf": ""},
    )
    assert reply.status_code in (403, 422)
    assert studio.person("lead").ask("GET", "/projects/p")["state"] == "open"


def test_a_session_that_ended_opens_nothing(studio):
    person = studio.person("rater").login()
    cookie = person.http.cookies[auth.SESSION_COOKIE]
    person.ask("POST", "/logout")
    assert person.http.get("/api/v1/me", headers={"cookie": f"{auth.SESSION_COOKIE}={cookie}"}).status_code == 401


def test_a_token_is_shown_once_and_useless_when_revoked(studio):
    person = studio.person("rater").login()
    made = person.ask("POST", "/tokens", {"name": "nightly"})
    assert made["token"].startswith("keel_")
    assert all("token" not in token for token in person.ask("GET", "/tokens"))
    bearer = studio.stranger()
    bearer.http.headers["authorization"] = f"Bearer {made['token']}"
    assert bearer.ask("GET", "/me")["name"] == "rater"
    bearer.ask("POST", "/tokens", {"name": "another"}, status=403)
    person.ask("DELETE", f"/tokens/{made['id']}")
    assert bearer.status("GET", "/me") == 401


def test_a_token_of_somebody_else_cannot_be_revoked(studio):
    made = studio.person("rater").login().ask("POST", "/tokens", {"name": "mine"})
    assert studio.person("lead").status("DELETE", f"/tokens/{made['id']}") == 404


def test_an_invitation_lets_in_as_often_as_it_says(studio):
    link = studio.person("lead").ask("POST", "/projects/p/invites", {"role": "rater", "uses": 1})
    stranger = studio.stranger()
    assert stranger.ask("GET", f"/invites/{link['token']}")["role"] == "rater"
    joined = stranger.ask("POST", f"/invites/{link['token']}/accept", {"name": "Zoë", "password": PASSWORD})
    assert joined["project"] == "p"
    assert stranger.ask("GET", "/me")["projects"][0]["role"] == "rater"
    again = studio.stranger().ask(
        "POST", f"/invites/{link['token']}/accept", {"name": "late", "password": PASSWORD}, status=404
    )
    assert "used up" in again["error"]["message"]


def test_a_name_that_is_taken_is_not_taken_over_by_an_invitation(studio):
    link = studio.person("lead").ask("POST", "/projects/p/invites", {"role": "lead"})
    path = f"/invites/{link['token']}/accept"
    refused = studio.stranger().ask("POST", path, {"name": "ADMIN", "password": PASSWORD}, status=409)
    assert refused["error"]["field"] == "name"
    assert studio.stranger().ask("GET", f"/invites/{link['token']}")


def test_only_so_many_failed_logins_and_then_a_wait(tmp_path):
    studio = Studio(tmp_path / "studio.sqlite", StudioSettings(login_attempts=3, login_window_s=600))
    wrong = {"name": "rater", "password": "a wrong password"}
    assert [studio.stranger().status("POST", "/login", wrong) for _ in range(4)] == [401, 401, 401, 429]
    right = studio.stranger().http.post("/api/v1/login", json={"name": "Rater", "password": PASSWORD})
    assert right.status_code == 429
    assert int(right.headers["retry-after"]) > 0
    assert studio.stranger().status("POST", "/login", {"name": "senior", "password": PASSWORD}) == 200


def test_an_unknown_name_and_a_wrong_password_look_the_same(studio):
    replies = [
        studio.stranger().http.post("/api/v1/login", json={"name": name, "password": "a wrong password"})
        for name in ("senior", "nobody at all")
    ]
    assert replies[0].json() == replies[1].json()
    assert [reply.status_code for reply in replies] == [401, 401]


def test_requests_that_come_too_fast_wait(tmp_path):
    studio = Studio(tmp_path / "studio.sqlite", StudioSettings(requests_per_s=1, requests_burst=5))
    person = studio.person("rater")
    statuses = [person.status("GET", "/me") for _ in range(7)]
    assert statuses[:5] == [200] * 5
    assert statuses[-1] == 429
    assert studio.person("senior").status("GET", "/me") == 200


def test_a_limiter_fills_up_again_and_forgets_strangers():
    now = [0.0]
    limiter = RateLimiter(1.0, 2, keys=2, clock=lambda: now[0])
    assert [limiter.wait_s("ann") for _ in range(3)] == [0.0, 0.0, 1.0]
    now[0] = 1.0
    assert limiter.wait_s("ann") == 0.0
    limiter.give_back("ann")
    assert limiter.wait_s("ann") == 0.0
    for name in ("ben", "cat"):
        limiter.wait_s(name)
    assert limiter.wait_s("ann") == 0.0  # forgotten, so it has its burst again


def test_who_is_kept_out_is_out_at_once(studio):
    studio.add_member("leaving")
    person, admin = studio.person("leaving"), studio.person("admin")
    user = person.ask("GET", "/me")["id"]
    admin.ask("PATCH", f"/users/{user}", {"active": False})
    assert person.status("GET", "/me") == 401
    assert studio.stranger().status("POST", "/login", {"name": "leaving", "password": PASSWORD}) == 401


def test_another_site_cannot_sign_anybody_in(studio):
    given = {"name": "rater", "password": PASSWORD}
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 303)):
        reply = studio.stranger().http.post(
            "/login", data=given, headers={"sec-fetch-site": site}, follow_redirects=False
        )
        assert (reply.status_code, "keel_session" in reply.headers.get("set-cookie", "")) == (status, status == 303)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://testserver", 303),
        (None, 303),
        ("http://elsewhere.example", 403),
        ("null", 403),
        ("http://testserver:81", 403),
    ],
)
def test_over_plain_http_the_origin_tells_who_sent_the_form(studio, origin, status):
    given, headers = {"name": "rater", "password": PASSWORD}, {} if origin is None else {"origin": origin}
    reply = studio.stranger().http.post("/login", data=given, headers=headers, follow_redirects=False)
    assert (reply.status_code, "keel_session" in reply.headers.get("set-cookie", "")) == (status, status == 303)


def test_the_address_that_people_open_is_no_other_site(tmp_path):
    settings = StudioSettings(public_url="https://studio.example.org")
    studio = Studio(tmp_path / "studio.sqlite", settings)
    given = {"name": "rater", "password": PASSWORD}
    reply = studio.stranger().http.post(
        "/login", data=given, headers={"origin": "https://studio.example.org"}, follow_redirects=False
    )
    assert reply.status_code == 303


@pytest.mark.parametrize("keep", [False, True])
def test_a_new_password_revokes_tokens_unless_they_are_kept(studio, keep):
    name = f"changes password {keep}"
    studio.add_member(name)
    person, program = studio.person(name).login(), studio.person(name)
    assert program.status("GET", "/me") == 200
    body = {"current": PASSWORD, "new": "quite another long phrase", "keep_tokens": keep}
    person.http.headers["x-keel-csrf"] = person.ask("POST", "/me/password", body)["csrf"]
    assert person.status("GET", "/me") == 200
    assert program.status("GET", "/me") == (200 if keep else 401)
    number = person.ask("GET", "/me")["id"]
    studio.person("admin").ask("PATCH", f"/users/{number}", {"password": "set by somebody else"})
    assert program.status("GET", "/me") == 401


def test_a_link_can_be_revoked_and_brings_nobody_back_who_was_taken_out(studio):
    studio.add_member("sly")
    sly, lead = studio.person("sly"), studio.person("lead")
    made = lead.ask("POST", "/projects/p/invites", {"role": "lead", "uses": 5})
    assert sly.ask("POST", f"/invites/{made['token']}/accept")["role"] == "rater"  # in already: nothing is raised
    lead.ask("DELETE", f"/projects/p/members/{sly.ask('GET', '/projects/p')['pseudonym']}")
    sly.ask("POST", f"/invites/{made['token']}/accept", status=409)
    assert sly.status("GET", "/projects/p") == 404
    listed = lead.ask("GET", "/projects/p/invites")[0]
    assert (listed["uses_left"], made["token"] in str(listed)) == (5, False)
    lead.ask("DELETE", f"/projects/p/invites/{listed['id']}")
    assert studio.stranger().status("GET", f"/invites/{made['token']}") == 404
    assert listed["id"] not in [link["id"] for link in lead.ask("GET", "/projects/p/invites")]
    assert lead.ask("GET", "/projects/p/audit?limit=1")[0]["action"] == "revoke invite"


def test_the_last_admin_stays(studio):
    admin = studio.person("admin")
    user = admin.ask("GET", "/me")["id"]
    for body in ({"active": False}, {"admin": False}):
        assert admin.status("PATCH", f"/users/{user}", body) == 409
    assert admin.status("POST", f"/users/{user}/erase") == 409


def test_an_erased_rater_is_gone_and_the_votes_stay(studio):
    studio.add_member("forget me")
    person, lead, admin = studio.person("forget me"), studio.person("lead"), studio.person("admin")
    task = person.ask("POST", "/projects/p/next", {})["task"]
    person.ask("POST", "/projects/p/judgments", {"lease": task["lease"], "choice": "left", "client_key": "last-vote-1"})
    pseudonym = person.ask("GET", "/projects/p")["pseudonym"]
    admin.ask("POST", f"/users/{person.ask('GET', '/me')['id']}/erase")
    assert person.status("GET", "/me") == 401
    assert "forget me" not in str(admin.ask("GET", "/users")) + str(admin.ask("GET", "/audit?limit=1000"))
    assert "forget me" not in str(lead.ask("GET", "/projects/p/members"))
    lead.ask("PATCH", "/projects/p", {"settings": {"overlap": 1}})
    shown = lead.ask("GET", "/projects/p/items?state=complete")["items"]
    assert pseudonym in {vote["rater"] for item in shown for vote in item["judgments"]}


def test_every_change_is_in_the_log(studio):
    lead, admin = studio.person("lead"), studio.person("admin")
    before = admin.ask("GET", "/audit?limit=1")[0]["id"]
    lead.ask("PATCH", "/projects/p", {"settings": {"overlap": 4}})
    lead.ask("POST", "/projects/p/guide", {"text": "# Two"})
    lead.ask("POST", "/projects/p/invites", {})
    lead.ask("PUT", "/projects/p/items/1/gold", {"gold": "a"})
    lead.ask("DELETE", "/projects/p/items/2")
    entries = [entry for entry in admin.ask("GET", "/audit") if entry["id"] > before]
    assert [entry["action"] for entry in reversed(entries)] == [
        "change project",
        "new guide",
        "invite",
        "set gold",
        "remove item",
    ]
    assert {entry["user"] for entry in entries} == {"lead"}
    assert all(abs(entry["at"] - time.time()) < 600 for entry in entries)
    assert {entry["user"] for entry in lead.ask("GET", "/projects/p/audit?limit=3")} != {"lead"}  # a pseudonym
