"""The leads' pages in a real Chromium: from an empty studio through calibration to votes."""

import re
import time

import pytest
from helpers.studio_browser import PASSWORD, browser, sign_in, studio

from keel.store.rows import NewItem

ITEMS = 8


@pytest.fixture(scope="module")
def chrome():
    with browser() as opened:
        yield opened


@pytest.fixture
def desk(tmp_path):
    with studio(tmp_path) as opened:
        yield opened


def pair_lines(count):
    lines = (f'{{"prompt": "Question {i}?", "a": "Answer a of {i}.", "b": "Answer b of {i}."}}' for i in range(count))
    return "\n".join(lines)


def judge_round(page, project_url, wanted):
    """Judge all that is offered: `wanted(number)` is a or b of each question."""
    page.goto(f"{project_url}/judge")
    page.wait_for_selector(".answer")
    for _ in range(ITEMS):
        assert "Calibration" in page.inner_text("[data-strip=round]")
        prompt = page.inner_text(".prompt .prose")
        number = int(re.findall(r"\d+", prompt)[0])
        a_left = page.inner_text(".answer[data-side=left] .prose").startswith("Answer a")
        page.keyboard.press("1" if (wanted(number) == "a") == a_left else "2")
        page.wait_for_function(
            "before => document.querySelector('.over') || document.querySelector('.prompt .prose').innerText !== before",
            arg=prompt,
        )
    page.wait_for_function("() => !Object.keys(localStorage).some(key => key.includes(':op:'))")


def test_a_lead_takes_three_raters_through_calibration_until_they_are_unlocked(desk, chrome):
    desk.user("grace", admin=True)
    lead = chrome.new_context().new_page()
    lead.on("dialog", lambda dialog: dialog.accept())
    lead = sign_in(lead.context, desk.url, "grace")
    lead.fill("#title", "Help desk")
    lead.fill("#name", "helpdesk")
    lead.click("text=Create the project")
    home = f"{desk.url}/p/helpdesk"
    lead.wait_for_url(home)
    assert "import the pairs" in lead.inner_text(".head")

    lead.goto(f"{home}/items")
    lead.fill("#pasted", pair_lines(30))
    lead.click("text=Import >> nth=-1")
    lead.wait_for_selector("text=30 pairs added.")
    lead.goto(f"{home}/settings")
    lead.fill("#calibration_items", str(ITEMS))
    lead.fill("#golden_share", "0")
    lead.fill("#repeat_share", "0")
    lead.click("text=Save the settings")
    lead.wait_for_selector("text=The settings are saved.")
    lead.goto(f"{home}/guide")
    lead.fill("#text", "# Which is better?\n\n<script>window.hit=1</script>")
    lead.wait_for_selector("[data-preview-here] >> text=Which is better?")
    lead.click("text=Save as version 1")
    lead.wait_for_selector("text=Save as version 2")

    raters = []
    for number in range(3):
        lead.goto(f"{home}/members")
        lead.click("text=Make a link")
        link = lead.input_value("#link").replace("http://127.0.0.1:8400", desk.url)
        page = chrome.new_context().new_page()
        page.goto(link)
        page.fill("#name", f"rater{number}")
        page.fill("#password", PASSWORD)
        page.click("text=Join >> nth=-1")
        page.wait_for_url(f"{home}/judge")
        page.wait_for_selector(".over")
        raters.append(page)

    lead.goto(f"{home}/calibration")
    lead.click("text=Start round 1")
    lead.wait_for_selector("text=Raters are judging")
    for number, page in enumerate(raters):
        judge_round(page, home, lambda question, shift=number: "ab"[(question // (1 + shift)) % 2])
        assert "Your part of this round is done" in page.inner_text(".over")
    lead.reload()
    lead.click("text=Close the round")
    lead.wait_for_selector("text=Round 1 is not passed")
    assert lead.locator(".disagreement").count() > 0
    assert "Answer a of" in lead.inner_text(".disagreement >> nth=0")

    lead.click("text=Edit the guide")
    lead.fill("#text", "# Which is better?\n\nOdd questions: b. Even ones: a.")
    lead.click("text=Save as version 2")
    lead.wait_for_selector("text=Save as version 3")
    lead.goto(f"{home}/calibration")
    lead.click("text=Start round 2")
    lead.wait_for_selector("text=Raters are judging")
    for page in raters:
        judge_round(page, home, lambda question: "ab"[question % 2])
    lead.reload()
    lead.click("text=Close the round")
    lead.wait_for_selector("text=Round 2 is passed: agreement 1.00")
    assert lead.inner_text(".steps .done >> nth=-1") == "Unlocked"

    lead.goto(home)
    assert "open" in lead.inner_text(".head .pill")
    for page in raters:
        page.goto(f"{home}/judge")
        page.wait_for_selector(".answer")
        assert page.locator("[data-strip=round]").count() == 0
    with desk.store.reading() as tx:
        project = tx.projects.by_name("helpdesk")
        members = tx.people.members(project.id)
    assert project.state == "open"
    assert [member.unlocked_round for member in members if member.role == "rater"] == [2, 2, 2]
    assert lead.evaluate("() => window.hit") is None


def test_every_page_of_a_project_opens_and_nothing_runs_that_the_policy_forbids(desk, chrome):
    user, project = desk.user("grace", admin=True), desk.project()
    desk.join(project, user, "lead")
    nasty = '<script>window.hit=1</script><img src=x onerror="window.hit=1">'
    with desk.store.writing() as tx:
        added = tx.items.add(project.id, [NewItem(prompt=nasty, a=f"{nasty} a", b=f"{nasty} b")], now=time.time())
    context = chrome.new_context()
    page, troubles = sign_in(context, desk.url, "grace"), []
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    places = [
        "",
        "/items",
        "/disputes",
        "/calibration",
        "/raters",
        "/guide",
        "/snapshots",
        "/members",
        "/settings",
        "/audit",
    ]
    for address in [f"/p/{project.name}{place}" for place in places] + ["/", "/account", "/audit"]:
        answer = page.goto(desk.url + address)
        assert answer.status == 200, address
        assert page.locator(".head h1").count() == 1, address
        assert page.evaluate("window.hit") is None, address
    page.goto(f"{desk.url}/p/{project.name}/items?text=script&item={added.item_ids[0]}")
    assert "<script>window.hit=1</script>" in page.inner_text(".items details[open]")
    assert page.locator(".items script, .items img").count() == 0
    assert troubles == []


def test_a_refused_form_says_why_and_keeps_what_was_typed(desk, chrome):
    user, project = desk.user("grace"), desk.project(pairs=2)
    desk.join(project, user, "lead")
    page = sign_in(chrome.new_context(), desk.url, "grace", f"/p/{project.name}/items")
    page.fill("#pasted", '{"prompt": "p", "a": "x"}')
    page.click("text=Import >> nth=-1")
    page.wait_for_selector("form[data-live] [data-told]:not([hidden])")
    assert page.input_value("#pasted") == '{"prompt": "p", "a": "x"}'


def test_forms_work_without_javascript_and_refuse_a_foreign_token(desk, chrome):
    user, project = desk.user("grace"), desk.project(pairs=2)
    desk.join(project, user, "lead")
    page = sign_in(chrome.new_context(java_script_enabled=False), desk.url, "grace", f"/p/{project.name}/guide")
    page.fill("#text", "# Without a script")
    page.click("text=Save as version 2")
    assert "Version 2" in page.inner_text(".head")
    with desk.store.reading() as tx:
        assert tx.projects.get(project.id).guide_version == 2
    answer = page.request.post(f"{desk.url}/p/{project.name}/guide", form={"text": "stolen", "csrf": "0" * 32})
    assert answer.status == 403
    with desk.store.reading() as tx:
        assert tx.projects.get(project.id).guide_version == 2


def test_a_lead_revokes_a_link_and_unlocks_a_rater_with_a_reason_that_is_kept(desk, chrome):
    grace, ann, project = desk.user("grace"), desk.user("ann"), desk.project(pairs=2)
    desk.join(project, grace, "lead")
    rater = desk.join(project, ann)
    home = f"{desk.url}/p/{project.name}"
    page = sign_in(chrome.new_context(), desk.url, "grace", f"/p/{project.name}/members")
    page.on("dialog", lambda dialog: dialog.accept())
    assert page.locator("#open-links").count() == 0
    page.click("text=Make a link")
    token = page.input_value("#link").rsplit("/", 1)[1]
    assert page.locator("#open-links tbody tr").count() == 1
    page.click("#open-links >> text=Revoke")
    page.wait_for_selector("text=The link lets nobody in any more")
    assert page.locator("#open-links").count() == 0
    assert page.request.get(f"{desk.url}/api/v1/invites/{token}").status == 404

    page.click("summary >> text=Unlock")
    page.fill("[name=reason]", "Wrote the guide with us.")
    page.click(f"text=Unlock {rater.pseudonym}")
    page.wait_for_selector(f"text={rater.pseudonym} may judge")
    assert "by a lead" in page.inner_text("table >> nth=0")
    page.goto(f"{home}/audit")
    assert "Wrote the guide with us." in page.inner_text("main")
    with desk.store.reading() as tx:
        assert tx.people.membership(project.id, ann.id).unlocked_round == 0


def test_a_lead_makes_golden_what_two_seniors_agreed_on(desk, chrome):
    project = desk.project(pairs=1, overlap=2)
    for name, role in (("grace", "lead"), ("ann", "senior")):
        desk.join(project, desk.user(name), role)
        page = sign_in(chrome.new_context(), desk.url, name, f"/p/{project.name}/judge")
        page.wait_for_selector(".answer")
        a_left = page.inner_text(".answer[data-side=left] .prose").startswith("Answer a")
        page.keyboard.press("1" if a_left else "2")
        page.wait_for_selector(".over")
    page = sign_in(chrome.new_context(), desk.url, "grace", f"/p/{project.name}/items")
    assert "There are 0 golden items" in page.inner_text("#golden")
    assert "Answer a of 0." in page.inner_text("#golden tbody")
    page.click("text=Make golden")
    page.wait_for_selector("text=The known answer is set.")
    assert page.locator("#golden tbody").count() == 0
    with desk.store.reading() as tx:
        (item,) = tx.items.each(project.id, "golden")
    assert item.gold == "a"


def test_a_rater_sees_neither_figures_nor_others(desk, chrome):
    user, project = desk.user("ann"), desk.project(pairs=2)
    desk.join(project, user)
    page = sign_in(chrome.new_context(), desk.url, "ann")
    for place in ("/items", "/disputes", "/raters", "/members", "/settings", "/snapshots", "/calibration", "/audit"):
        assert page.goto(f"{desk.url}/p/{project.name}{place}").status == 403, place
    page.goto(f"{desk.url}/p/{project.name}")
    assert page.url.endswith("/judge")
