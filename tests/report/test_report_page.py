"""The page: self-contained, escaped, small, quick, whatever the run left behind."""

import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.report_runs import KINDS, write_run

from keel.core.events import EventLog
from keel.report.html import render, write_report
from keel.report.parts import cost_phases, difference
from keel.report.read import read_run

VOID = {"meta", "link", "br", "img", "input", "hr", "path", "use", "rect"}


class Outline(HTMLParser):
    """Checks that tags nest, and collects tags, attributes and visible text."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attr) for attr in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attr) for attr in attrs]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text.append(data)


def outline(page):
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The page of every kind of run."""
    folder = tmp_path_factory.mktemp("runs")
    return {kind: write_report(write_run(folder / kind, kind)).read_text(encoding="utf-8") for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_well_formed_and_small(pages, kind):
    outline(pages[kind])
    assert len(pages[kind].encode()) < 1_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_asks_for_nothing_outside_itself(pages, kind):
    parsed = outline(pages[kind])
    assert not {"script", "img", "iframe", "object", "embed", "base", "form"} & set(parsed.tags)
    for tag, name, value in parsed.attributes:
        if name in {"src", "href", "xlink:href", "action", "data"}:
            assert value.startswith(("#", "data:")), (tag, name, value)
        assert not name.startswith("on")
    styles = " ".join(re.findall(r"<style>(.*?)</style>", pages[kind], re.S)) + " ".join(
        value for _, name, value in parsed.attributes if name == "style"
    )
    assert "@import" not in styles
    assert not re.search(r"url\((?!#)", styles)
    assert "default-src 'none'" in pages[kind]


def test_text_of_models_and_users_is_escaped(pages):
    parsed = outline(pages["hostile"])
    text = "".join(parsed.text)
    assert "<script>alert('x')</script>" in text
    assert "</td></table><style>*{display:none}</style>" in text
    assert parsed.tags.count("style") == 1
    assert "\\x1b[31mred" in text
    assert "\\u202etxet" in text
    assert not re.search("[\x00-\x08\x1b\u202e\ud800]", pages["hostile"])


def test_long_answers_are_cut_and_say_so(pages):
    assert re.search(r"and \d+ characters more", pages["hostile"])


def test_sections_follow_what_the_run_measured(pages):
    anchors = {kind: re.findall(r'<section id="(\w+)"', page) for kind, page in pages.items()}
    assert anchors["sft_only"] == ["sft", "costs", "config"]
    assert anchors["hacked"][:4] == ["distance", "score", "evaluation", "alarms"]
    assert "alarms" not in anchors["rounds"]
    for kind, page in pages.items():
        assert re.findall(r'<a href="#(\w+)"', page) == anchors[kind]


def test_every_plot_says_what_to_look_for(pages):
    for page in pages.values():
        assert page.count("<figure") == page.count("<figcaption>") == page.count("<svg")
        assert "<figcaption></figcaption>" not in page


def test_the_ladder_shows_its_bands_and_units(pages):
    ladder = pages["hacked"].split('<section id="distance">')[1].split("</section>")[0]
    for words in ("nats per token", "nats per answer", "healthy", "watch", "go back"):
        assert f">{words}</text>" in ladder


def test_steps_that_were_not_numbers_are_marked(pages):
    assert "A red cross on an axis marks a step" in pages["with_nan"]
    assert "A red cross" not in pages["healthy"]


def test_colours_follow_the_scheme_of_the_page(pages):
    page = pages["healthy"]
    assert "prefers-color-scheme: dark" in page
    figures = "".join(re.findall(r"<svg.*?</svg>", page, re.S))
    assert set(re.findall(r"#[0-9a-f]{6}\b", figures)) == set()
    assert "var(--blue)" in figures


def test_ids_inside_a_page_are_unique_or_the_same_drawing(pages):
    kept: dict[str, str] = {}
    for element, name in re.findall(r'(<(?:path|clipPath)[^>]* id="([^"]+)"[^>]*>)', pages["healthy"]):
        assert kept.setdefault(name, element) == element


def test_a_page_is_the_same_every_time(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    assert render(run) == render(run)


def test_a_long_run_stays_small_and_quick(tmp_path):
    folder = write_run(tmp_path / "run", steps=5000)
    begun = time.perf_counter()
    page = write_report(folder)
    assert time.perf_counter() - begun < 4
    assert page.stat().st_size < 1_000_000


def test_a_run_with_one_step_draws(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.append("stage_started", stage="ppo", config={})
    log.append("step", stage="ppo", step=1, of=9, kl_nats_per_token=0.1, kl_nats_per_sequence=2.0, score_mean=0.1)
    page = write_report(tmp_path).read_text()
    assert "Stopped during reinforcement learning, at step 1 of 9" in page


def test_a_run_that_has_only_begun_still_makes_a_page(tmp_path):
    EventLog(tmp_path / "events.jsonl").append("stage_started", stage="sft", config={"epochs": 3})
    page = write_report(tmp_path).read_text()
    assert "Stopped during supervised fine-tuning" in page
    assert "epochs: 3" in page


def test_the_code_of_the_docs_page_runs(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    write_run(tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "docs/report.md", "exec"), {})
    assert "Better: wins 74 of 100" in capsys.readouterr().out
    assert Path("runs/demo/report.html").is_file()


def test_differences_are_marked_word_by_word():
    before, after = difference("the bike is blue . buy it", "the bike is dark red . buy it")
    assert before == "the bike is <del>blue</del> . buy it"
    assert after == "the bike is <ins>dark red</ins> . buy it"


def test_answers_without_words_in_common_are_left_unmarked():
    assert difference("alpha beta", "gamma <b>") == ("alpha beta", "gamma &lt;b&gt;")


def test_costs_add_up_to_the_time_of_the_stages(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    phases = cost_phases(run)
    assert sum(phase.seconds for phase in phases) == pytest.approx(59 + 74 + 228 + 10)
    named = {phase.title: phase.seconds for phase in phases}
    assert named["reinforcement learning: updating"] == pytest.approx(120)


def test_a_split_finer_than_its_stage_is_not_believed(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.append("stage_started", stage="ppo", config={})
    log.append("step", stage="ppo", step=1, seconds_rollout=50.0)
    log.append("stage_finished", stage="ppo", seconds=10.0, metrics={})
    assert [phase.title for phase in cost_phases(read_run(tmp_path))] == ["reinforcement learning"]
