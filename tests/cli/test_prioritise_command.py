"""keel prioritise: from a run's reward models to what raters are given next."""

import shutil

import pytest
from helpers.projects import begin, first_open, join
from helpers.recipes import PROMPTS, Workplace, answers

from keel.annotate.selection import disagreement
from keel.cli.main import main
from keel.core.config import load_config
from keel.stages.prioritise import prioritise, scored
from keel.stages.promote import chosen
from keel.stages.recipe import Recipe
from keel.store.rows import NewItem
from keel.store.store import Store

SMALL = {"members": 3, "epochs": 1, "best_of": None}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("prioritise"), count=16)
    return {
        "ensemble": place.run(only="reward", to="three", reward=SMALL).directory,
        "single": place.run(only="reward", to="one", reward={**SMALL, "members": 1}).directory,
    }


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    items = [NewItem(prompt=p, a=answers(n)[0], b=answers(n)[1], priority=5.0) for n, p in enumerate(PROMPTS[:12])]
    items.append(NewItem(prompt="how is it ?", a=" no ." * 60, b=" yes .", priority=9.0))  # over data.max_tokens
    begin(tmp_path / "studio.sqlite", items).close()
    return tmp_path


def test_the_pairs_that_divide_an_ensemble_are_given_first(place, runs, capsys):
    assert main(["prioritise", str(runs["ensemble"]), "studio.sqlite::help", "--count", "3", "--diversity", "0"]) == 0
    said = capsys.readouterr().out
    assert "3 of 12 open pairs put first, by disagreement of an ensemble of 3." in said
    assert "1 more do not fit" in said
    with Store.open("studio.sqlite") as store:
        with store.reading() as tx:
            project = tx.projects.by_name("help")
            items = list(tx.items.each(project.id))
            (entry,) = tx.audit.find(project_id=project.id, action="prioritise pairs")
        differences, places = scored(
            items, load_config(Recipe, runs["ensemble"] / "recipe.yaml"), chosen(runs["ensemble"], "reward")
        )
        assert differences.shape == (3, 12)
        wanted = [items[places[at]].id for at in (-disagreement(differences)).argsort()[:3]]
        ordered = sorted((item for item in items if item.priority > 0), key=lambda item: -item.priority)
        assert [item.id for item in ordered] == wanted
        assert items[-1].priority == 0
        assert entry.details["first"] == 3
        assert len(entry.details["models"]) == 3
        join(store, "ann")
        with store.writing() as tx:
            user = tx.people.user_by_name("ann")
            assert tx.work.lease(project.id, user.id, first_open, 2000.0).item_id == wanted[0]


def test_a_single_model_goes_by_uncertainty_and_cannot_disagree(place, runs, capsys):
    words = ["prioritise", str(runs["single"]), "studio.sqlite::help"]
    assert main([*words, "--method", "disagreement"]) == 2
    assert "cannot disagree with itself" in capsys.readouterr().err
    with Store.open("studio.sqlite") as store, store.reading() as tx:
        assert {item.priority for item in tx.items.each(tx.projects.by_name("help").id)} == {5.0, 9.0}
    assert main(words) == 0
    assert "12 of 12 open pairs put first, by uncertainty of 1 reward model." in capsys.readouterr().out


def test_the_same_run_gives_the_same_order(place, runs):
    shutil.copy("studio.sqlite", "copy.sqlite")
    found = []
    for name in ("studio.sqlite", "copy.sqlite"):
        with Store.open(name) as store:
            found.append([item.id for item in prioritise(store, "help", runs["ensemble"], count=6).first])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("RUN studio.sqlite::help@week-1", "never changes"),
        ("RUN http://127.0.0.1:1::help", "web address"),
        ("RUN other.sqlite::help", "no such database"),
        ("RUN studio.sqlite::other", "no project called"),
        ("RUN studio.sqlite::help --count 0", "1 or more"),
        ("RUN studio.sqlite::help --diversity nan", "0 or more"),
        ("nowhere studio.sqlite::help", "summary.json"),
    ],
)
def test_what_cannot_be_is_one_message(place, runs, capsys, words, said):
    assert main(["prioritise", *words.replace("RUN", str(runs["single"])).split()]) == 2
    found = capsys.readouterr().err
    assert said in found
    assert "Traceback" not in found


def test_a_project_with_nothing_open_says_so(place, runs, capsys):
    with Store.open("studio.sqlite") as store, store.writing() as tx:
        for item in list(tx.items.each(tx.projects.by_name("help").id)):
            tx.items.remove(item.id, now=3000.0)
    assert main(["prioritise", str(runs["single"]), "studio.sqlite::help"]) == 2
    assert "no open pair" in capsys.readouterr().err
