"""Signing out of a device that others may use, in a real Chromium: no vote is lost, and none stays to be read."""

import pytest
from helpers.studio_browser import browser, sign_in, studio

SENDING = "**/api/v1/projects/helpdesk/judgments"
KEPT = "() => [...Object.keys(localStorage), ...Object.keys(sessionStorage)].filter(key => key.startsWith('keel:'))"


@pytest.fixture
def left_behind(tmp_path):
    """(desk, project, page): the list of projects, two votes on the device that never reached the server."""
    with studio(tmp_path) as desk, browser() as chrome:
        project, user = desk.project(pairs=6), desk.user("ann")
        desk.join(project, user)
        page = sign_in(chrome.new_context(), desk.url, "ann", "/p/helpdesk/judge")
        page.wait_for_selector(".answer")
        page.route(SENDING, lambda route: route.abort())
        for _ in range(2):
            before = page.inner_text(".prompt .prose")
            page.keyboard.press("1")
            page.wait_for_function("was => document.querySelector('.prompt .prose').innerText !== was", arg=before)
        page.goto(desk.url)
        assert len([key for key in page.evaluate(KEPT) if ":op:" in key]) == 2
        assert desk.votes(project) == []
        yield desk, project, page


def test_votes_that_wait_are_sent_and_nothing_stays_on_the_device(left_behind):
    desk, project, page = left_behind
    page.unroute(SENDING)
    page.click("text=Sign out")
    page.wait_for_url("**/login")
    assert len(desk.votes(project)) == 2
    assert page.evaluate(KEPT) == []


def test_votes_that_cannot_be_sent_are_asked_about_and_never_dropped(left_behind):
    desk, project, page = left_behind
    asked = []
    page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.click("text=Sign out")
    page.wait_for_timeout(500)
    assert asked == [
        "2 of your votes could not be sent. They stay on this device until you sign in here again. "
        "Sign out all the same?"
    ]
    assert page.url == f"{desk.url}/"
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("text=Sign out")
    page.wait_for_url("**/login")
    assert len(page.evaluate(KEPT)) == sum(":op:" in key for key in page.evaluate(KEPT)) == 2
    page.unroute(SENDING)
    page = sign_in(page.context, desk.url, "ann", "/p/helpdesk/judge")
    page.wait_for_function("() => !Object.keys(localStorage).some(key => key.includes(':op:'))", timeout=10_000)
    assert len(desk.votes(project)) == 2


@pytest.mark.parametrize("answer", ["a page of the hotel's network", "none at all"])
def test_whatever_answers_in_the_studio_s_place_keeps_nobody_signed_in(left_behind, answer):
    *_, page = left_behind
    page.unroute(SENDING)
    page.route(SENDING, lambda route: route.fulfill(body="<p>Accept our terms") if "hotel" in answer else None)
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("text=Sign out")
    page.wait_for_url("**/login")
    assert len([key for key in page.evaluate(KEPT) if ":op:" in key]) == 2
    page.unroute_all(behavior="ignoreErrors")
