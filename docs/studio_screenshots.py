"""Fills a studio with a realistic project and takes the screenshots of docs/studio.md.

    python docs/studio_screenshots.py

Six simulated raters judge a help desk's answers for three weeks: four are good, one is hasty, one leans to the left.
Everything is made up here; the store and the pages are the real ones. Needs a Chromium (KEEL_CHROMIUM or on PATH).
"""

import io
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from helpers.studio_browser import browser, serving, sign_in  # noqa: E402
from helpers.studio_pairs import GUIDES, PAIRS  # noqa: E402
from PIL import Image  # noqa: E402

from keel.annotate.assignment import choose  # noqa: E402
from keel.store.rows import Draft, NewItem  # noqa: E402
from keel.store.settings import ProjectSettings  # noqa: E402
from keel.store.store import Store  # noqa: E402
from keel.studio.app import create_app  # noqa: E402
from keel.studio.auth import hash_password  # noqa: E402
from keel.studio.settings import StudioSettings  # noqa: E402

DAY_S = 86_400.0
DAYS = 19
PASSWORD = "a long and lasting phrase"
RATERS = {  # accuracy, seconds a pair, how often the left one is taken unseen, pairs a day
    "ana": (0.95, 34, 0.0, 15),
    "ben": (0.93, 41, 0.0, 13),
    "chloe": (0.92, 29, 0.0, 14),
    "dev": (0.90, 38, 0.02, 12),
    "ewa": (0.86, 11, 0.25, 14),
    "finn": (0.52, 6, 0.2, 10),
}
WHY = ("Answers what was asked", "The other one makes it up", "Clear steps", "Same content, shorter", "Kinder tone")
CUSTOMERS = (
    "",
    " I am on the family plan.",
    " It is urgent.",
    " I wrote last week already.",
    " I use the app on Android.",
)


def fill(store: Store) -> None:
    """The project `helpdesk` after calibration and three weeks of work, and two smaller ones."""
    rng, start = random.Random(7), time.time() - (DAYS + 2) * DAY_S
    with store.writing() as tx:
        hashed = hash_password(PASSWORD)
        lead = tx.people.create_user("grace", now=start, admin=True, password_hash=hashed)
        settings = ProjectSettings(calibration_items=12, golden_share=0.08, repeat_share=0.05, usd_per_judgment=0.12)
        project = tx.projects.create("helpdesk", "Help desk answers, autumn", settings, by=lead.id, now=start)
        tx.projects.new_guide(project.id, GUIDES[0], by=lead.id, now=start)
        people = {}
        for name in RATERS:
            user = tx.people.create_user(name, now=start, password_hash=hashed)
            tx.people.join(project.id, user.id, "rater", now=start)
            people[name] = user
        tx.items.add(project.id, list(pairs(rng)), now=start)
        for name, title, state in (
            ("safety", "Refusals: kind and firm", "paused"),
            ("poems", "Poems for birthdays", "setup"),
        ):
            other = tx.projects.create(name, title, ProjectSettings(), by=lead.id, now=start)
            tx.projects.set_state(other.id, state)
    calibrate(store, project.id, people, rng, start, passed=False)
    with store.writing() as tx:
        tx.projects.new_guide(project.id, GUIDES[1], by=lead.id, now=start + 0.6 * DAY_S)
    calibrate(store, project.id, people, rng, start + DAY_S, passed=True)
    for day in range(2, DAYS + 2):
        now = start + day * DAY_S
        if time.gmtime(now).tm_wday >= 5:
            continue
        for place, (name, (_, seconds, _, daily)) in enumerate(RATERS.items()):
            at = now - now % DAY_S + (8 + place / 2) * 3600
            for _ in range(max(2, round(rng.gauss(daily, 3)))):
                at = min(at + rng.gauss(seconds, seconds / 4) + 5, time.time())
                vote(store, project.id, people[name].id, name, rng, at)


def pairs(rng: random.Random) -> list[NewItem]:
    """Pairs in which the better answer is `a` half of the time; some with a known answer."""
    made = []
    for place, (prompt, better, worse) in enumerate(PAIRS):
        for number, more in enumerate(CUSTOMERS * 12):
            first = rng.random() < 0.5
            a, b = (better, worse) if first else (worse, better)
            models = {"a": "sft-7b", "b": "dpo-7b"} if first else {"a": "dpo-7b", "b": "sft-7b"}
            gold = ("a" if first else "b") if number == 0 else None
            ticket = f" (Ticket {1000 + 37 * place + number})" if number >= len(CUSTOMERS) else ""
            made.append(NewItem(prompt=prompt + more + ticket, a=a, b=b, provenance=models, gold=gold))
    rng.shuffle(made)
    return made


def calibrate(store: Store, project_id: int, people: dict, rng: random.Random, now: float, *, passed: bool) -> None:
    """A round, judged by all and closed."""
    from keel.annotate.ballots import ballots_of
    from keel.annotate.calibration import close_round, new_round

    with store.writing() as tx:
        project = tx.projects.get(project_id)
        skills = {member.pseudonym: () for member in tx.people.members(project_id) if member.role == "rater"}
        drawn = new_round(
            tx.rounds.all(project_id),
            project.guide_version,
            tx.items.each(project_id),
            skills,
            project.settings,
            seed=1,
        )
        opened = tx.rounds.open(project_id, drawn.item_ids, now=now)
        tx.projects.set_state(project_id, "calibrating")
    for name, user in people.items():
        for turn in range(len(opened.item_ids)):
            vote(store, project_id, user.id, name, rng, now + 60 * turn + 600, sure=0.94 if passed else 0.62, why=True)
    with store.writing() as tx:
        members = [member for member in tx.people.members(project_id) if member.role == "rater"]
        ballots = ballots_of(tx.work.votes(project_id, ("calibration",)), members)
        result = close_round(opened, ballots, [m.pseudonym for m in members], project.settings)
        unlocked = [m.user_id for m in members if m.pseudonym in result.unlocked] if result.passed else []
        tx.rounds.close(opened.id, result.to_dict(), result.passed, now=now + 0.3 * DAY_S, unlocked=unlocked)
        if result.passed:
            tx.projects.set_state(project_id, "open")


def vote(
    store: Store,
    project_id: int,
    user_id: int,
    name: str,
    rng: random.Random,
    now: float,
    sure: float = 0,
    why: bool = False,
) -> None:
    """One judgment as this rater would make it."""
    accuracy, seconds, leans, _ = RATERS[name]
    with store.writing() as tx:
        project = tx.projects.get(project_id)
        pick = partial(choose, settings=project.settings, seed=project_id)
        lease = tx.work.lease(project_id, user_id, pick, now)
        if lease is None:
            return
        item = tx.items.get(lease.item_id)
        better = "a" if item.provenance["a"] == "sft-7b" else "b"
        hard = len(item.prompt) % 5 == 0 and not sure
        own = random.Random(f"{name} {item.id}")  # somebody who sees a pair again mostly thinks the same
        right = own.random() < (sure or accuracy - 0.2 * hard)
        choice = better if right else own.choice(("tie", "tie", "b" if better == "a" else "a"))
        if rng.random() < leans and not sure:
            choice = "b" if lease.swapped else "a"
        flag = "Personal data" if rng.random() < 0.006 else None
        reason = rng.choice(WHY) if why or rng.random() < 0.15 else None
        draft = Draft(choice=choice, flag=flag, rationale=reason, seconds=max(2.0, rng.gauss(seconds, seconds / 4)))
        tx.work.judge(lease.id, user_id, draft, f"{rng.getrandbits(64):016x}", now)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "studio.db") as store:
        fill(store)
        app = create_app(store, StudioSettings(requests_per_s=1000, requests_burst=5000))
        with serving(app) as url, browser() as chrome:
            for shoot in (raters, leads):
                shoot(chrome, url)


def picture(page: object, name: str) -> None:
    page.wait_for_timeout(400)  # type: ignore[attr-defined]
    shot = io.BytesIO(page.screenshot())  # type: ignore[attr-defined]
    Image.open(shot).save(HERE / "images" / f"studio-{name}.webp", lossless=True, method=6)


def raters(chrome: object, url: str) -> None:
    wide = {"viewport": {"width": 1280, "height": 800}, "device_scale_factor": 1.5}
    for scheme in ("light", "dark"):
        page = sign_in(chrome.new_context(**wide, color_scheme=scheme), url, "ana", "/p/helpdesk/judge")  # type: ignore[attr-defined]
        page.wait_for_selector(".answer")
        if scheme == "light":
            while "parcel" not in page.inner_text(".prompt"):
                page.keyboard.press("1")
                page.wait_for_timeout(150)
            picture(page, "judge")
            page.keyboard.press("g")
            page.keyboard.down("d")
            picture(page, "judge-differences")
        else:
            picture(page, "judge-dark")
    phone = {
        "viewport": {"width": 390, "height": 780},
        "is_mobile": True,
        "has_touch": True,
        "device_scale_factor": 1.5,
    }
    page = sign_in(chrome.new_context(**phone), url, "ana", "/p/helpdesk/judge")  # type: ignore[attr-defined]
    page.wait_for_selector(".answer")
    picture(page, "judge-phone")


def leads(chrome: object, url: str) -> None:
    page = sign_in(chrome.new_context(viewport={"width": 1280, "height": 1010}, device_scale_factor=1.5), url, "grace")  # type: ignore[attr-defined]
    places = {
        "overview": "",
        "raters": "/raters",
        "calibration": "/calibration",
        "disputes": "/disputes",
        "items": "/items",
    }
    for name, place in places.items():
        page.goto(f"{url}/p/helpdesk{place}")
        if name == "items":
            page.click("summary >> nth=1")
        picture(page, name)
    page = sign_in(
        chrome.new_context(viewport={"width": 1280, "height": 1010}, device_scale_factor=1.5, color_scheme="dark"),
        url,
        "grace",
        "/p/helpdesk",
    )  # type: ignore[attr-defined]
    picture(page, "overview-dark")


if __name__ == "__main__":
    main()
