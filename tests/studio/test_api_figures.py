"""Money, missing raters and the course of a rater's work, as the API and the pages tell them."""

import pytest
from helpers.studio import Studio, pairs

from keel.annotate.forecast import budget
from keel.store.rows import NewItem
from keel.store.settings import ProjectSettings


@pytest.fixture
def studio(tmp_path):
    return Studio(tmp_path / "studio.sqlite", usd_per_judgment=0.155)


def page(studio: Studio, address: str) -> str:
    reply = studio.person("lead").login().http.get(address)
    assert reply.status_code == 200, reply.text
    return reply.text


def judged(person, number: int, side: str = "left") -> bool:
    task = person.ask("POST", "/projects/p/next", {})["task"]
    if task is not None:
        body = {"lease": task["lease"], "choice": side, "client_key": f"figures-{number}", "seconds": 5 + number}
        person.ask("POST", "/projects/p/judgments", body)
    return task is not None


def test_a_budget_is_that_of_the_projects_settings_to_the_cent(studio):
    studio.add_items(pairs(20))
    studio.add_member("second")
    told = studio.person("viewer").ask("GET", "/projects/p/budget")
    plan = budget(20, 2, ProjectSettings(usd_per_judgment=0.155))
    assert (told["pairs"], told["raters"], told["rounds"]) == (20, 2, 2)
    assert {part["purpose"]: part["judgments"] for part in told["parts"]} == plan.parts
    assert {part["purpose"]: part["usd"] for part in told["parts"]} == plan.usd
    names = ("judgments", "usd_per_judgment", "usd_total", "usd_per_pair", "calibration_share")
    assert {name: told[name] for name in names} == {name: getattr(plan, name) for name in names}
    assert sum(part["share"] for part in told["parts"]) == pytest.approx(1)


def test_a_budget_can_be_asked_for_before_anything_is_there(studio):
    told = studio.person("lead").ask("GET", "/projects/p/budget?pairs=1000&raters=8&rounds=1&disputes=0.2")
    plan = budget(1000, 8, ProjectSettings(usd_per_judgment=0.155), rounds=1, dispute_share=0.2)
    assert (told["judgments"], told["usd_total"]) == (plan.judgments, plan.usd_total)
    assert studio.person("lead").ask("GET", "/projects/p/budget")["pairs"] == 1


@pytest.mark.parametrize("query", ["pairs=0", "raters=0", "rounds=-1", "disputes=2", "pairs=many"])
def test_an_impossible_budget_is_refused(studio, query):
    studio.person("lead").ask("GET", f"/projects/p/budget?{query}", status=422)


def test_the_settings_page_shows_what_they_come_to(studio):
    text = page(studio, "/p/p/settings?pairs=1000&raters=8")
    total = budget(1000, 8, ProjectSettings(usd_per_judgment=0.155)).usd_total
    assert f"<b>{total:,.2f}</b>" in text
    assert "at $0.155 a judgment" in text
    assert 'value="1000"' in text


def test_an_impossible_plan_is_told_on_the_page(studio):
    assert "greater than or equal to 1" in page(studio, "/p/p/settings?pairs=0")


def test_pairs_that_too_few_may_judge_are_told(studio):
    studio.add_items([*pairs(3), NewItem(prompt="law?", a="x", b="y", skills=("law",))])
    studio.person("lead").ask("PATCH", "/projects/p", {"settings": {"overlap": 2}})
    told = studio.person("viewer").ask("GET", "/projects/p/progress")
    assert told["short_of_raters"] == [{"skills": ["law"], "raters": 0, "wanted": 2, "pairs": None}]
    assert "Pairs that need law cannot get their 2 votes:" in page(studio, "/p/p")
    assert studio.person("rater").ask("GET", "/projects/p/progress")["short_of_raters"] is None
    studio.person("lead").ask("PATCH", "/projects/p", {"settings": {"overlap": 5}})
    told = studio.person("lead").ask("GET", "/projects/p/progress")["short_of_raters"]
    assert [(gap["skills"], gap["raters"], gap["wanted"]) for gap in told] == [([], 3, 5), (["law"], 0, 5)]
    assert "Some pairs cannot get their 5 votes:" in page(studio, "/p/p")


def test_pairs_that_only_those_could_judge_who_may_read_their_votes_are_told(studio):
    studio.add_items(pairs(4))
    lead, rater = studio.person("lead"), studio.person("rater")
    lead.ask("PATCH", "/projects/p", {"settings": {"overlap": 2, "repeat_share": 0.0}})
    assert judged(rater, 0)
    assert lead.ask("GET", "/projects/p/progress")["short_of_raters"] == []
    assert lead.http.get("/api/v1/projects/p/export").status_code == 200
    told = lead.ask("GET", "/projects/p/progress")["short_of_raters"]
    assert told == [{"skills": [], "raters": 0, "wanted": 1, "pairs": 1}]
    assert "1 pair cannot get the missing 1 vote:" in page(studio, "/p/p")
    studio.add_member("second")
    assert lead.ask("GET", "/projects/p/progress")["short_of_raters"] == []


def test_a_card_tells_how_agreement_and_known_answers_went_over_time(tmp_path):
    studio = Studio(tmp_path / "studio.sqlite", overlap=2, golden_share=0.5, repeat_share=0.0)
    studio.add_items(pairs(40))
    studio.add_items([NewItem(prompt=f"known {n}", a="x", b=f"y {n}", gold="a") for n in range(20)])
    studio.add_member("second")
    rater, second = studio.person("rater"), studio.person("second")
    number = 0
    while judged(rater, number):
        number += 1
    while judged(second, number):
        number += 1
    lead = studio.person("lead")
    names = {person.ask("GET", "/projects/p")["pseudonym"] for person in (rater, second)}
    cards = {card["pseudonym"]: card for card in lead.ask("GET", "/projects/p/raters")}
    assert set(cards) == names
    for card in cards.values():
        series = card["series"]
        assert (len(series["agreement"]), len(series["gold"])) == (8, 4)
        assert all(0 <= value <= 1 for value in series["agreement"] + series["gold"])
        assert sum(series["gold"]) / 4 == pytest.approx(card["gold_accuracy"]["value"])
    assert ">Agrees<" in page(studio, "/p/p/raters")
