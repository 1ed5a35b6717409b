"""The rater's page over http without TLS, as in a room with one network: browsers withhold much from such pages."""

from helpers.studio_browser import LAN, browser, sign_in, studio


def test_votes_arrive_over_plain_http_where_browsers_have_neither_locks_nor_random_uuids(tmp_path):
    with studio(tmp_path) as desk, browser() as chrome:
        project = desk.project(pairs=6)
        desk.join(project, desk.user("ann"))
        asked = []
        page = sign_in(chrome.new_context(), desk.url.replace("127.0.0.1", LAN), "ann", "/p/helpdesk/judge")
        page.on("request", lambda request: asked.append(request.url.rsplit("/", 1)[-1]))
        page.wait_for_selector(".answer")
        assert page.evaluate("[isSecureContext, typeof navigator.locks]") == [False, "undefined"]
        for _ in range(4):
            page.keyboard.press("1")
        page.wait_for_function("() => !Object.keys(localStorage).some(key => key.includes(':op:'))", timeout=10_000)
        assert len(desk.votes(project)) == asked.count("judgments") == 4
        assert asked.count("next") <= 6, "the page asks for pairs when it needs some, not all the time"
