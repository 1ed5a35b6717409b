"""Killed with signal 9 and begun again: what was answered is not asked again."""

import json
import multiprocessing
import os
import re
import signal

import pytest
from helpers.ai_judges import labeller, python_judge, strength, strengths
from helpers.served import says, serving

from keel.core.progress import Silent
from keel.data.records import prompt_key
from keel.stages.endpoint import Endpoint, EndpointConfig
from keel.stages.feedback.answers import Answers
from keel.stages.feedback.critics import PythonCritic
from keel.stages.feedback.judges import EndpointJudge
from keel.stages.feedback.revise import Revision
from keel.stages.sections.constitution import Constitution, ConstitutionConfig, Principle


def killed(work) -> None:
    """Run `work` in a process of its own, which kills itself."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def dying(calls: int):
    """Kills the process at the last of so many calls."""
    left = [calls]

    def call():
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return call


def judge_that_notes(log, moment=lambda: None):
    def judge(questions):
        moment()
        with log.open("a") as file:
            file.writelines(f"{q.first} {q.second}\n" for q in questions)
        return [float(strength(q.first) > strength(q.second)) for q in questions]

    return python_judge(judge)


@pytest.mark.parametrize("calls", [1, 3, 6])
def test_a_function_is_asked_every_question_once(tmp_path, calls):
    pairs, log = strengths(200), tmp_path / "asked.txt"
    killed(lambda: labeller(judge_that_notes(log, dying(calls)), tmp_path)(pairs))
    made = labeller(judge_that_notes(log), tmp_path)(pairs)
    asked = log.read_text().splitlines()
    assert len(asked) == len(set(asked)) == 400
    assert made == labeller(judge_that_notes(log), tmp_path)(pairs)
    (tmp_path / "undisturbed").mkdir()
    assert made == labeller(judge_that_notes(tmp_path / "other.txt"), tmp_path / "undisturbed")(pairs)


@pytest.mark.parametrize("answers", [1, 7])
def test_an_endpoint_is_asked_every_question_once(tmp_path, monkeypatch, answers):
    pairs = strengths(10)

    def verdict(body):
        first, second = re.findall(r"\[answer \d\]\nanswer (.*)", body["messages"][0]["content"])
        return f"Verdict: {1 if float(first) > float(second) else 2}"

    with serving(says(verdict)) as server:
        config = EndpointConfig(url=server.url, model="big", retries=0, timeout_seconds=5, concurrency=1)
        judge = EndpointJudge(Endpoint(config))

        def work():
            keep, moment = Answers.keep, dying(answers)

            def kept(self, answers):
                keep(self, answers)
                moment()

            monkeypatch.setattr(Answers, "keep", kept)
            labeller(judge, tmp_path)(pairs)

        killed(work)
        assert len(server.requests) == answers
        assert len(labeller(judge, tmp_path)(pairs)) == 10
    asked = [json.dumps(request["body"]) for request in server.requests]
    assert len(asked) == len(set(asked)) == 20


def test_a_critic_revises_every_draft_once(tmp_path):
    log = tmp_path / "revised.txt"
    principle = Principle(id="kind", critique="c", revise="r", prefer="p")
    drafts = [(f"question {n}?", f"answer {n}") for n in range(200)]

    def revision(moment=lambda: None):
        def revise(asked):
            moment()
            with log.open("a") as file:
                file.writelines(f"{prompt_key(d.prompt)} {d.text}\n" for d in asked)
            return [("too short", f"{d.text}, gladly") for d in asked]

        return Revision(
            config=ConstitutionConfig(path="unused", rounds=2),
            constitution=Constitution(principles=(principle,)),
            critic=PythonCritic(revise, "critic", "critic"),
            answers=Answers(tmp_path / "answers.sqlite"),
            seed=0,
            progress=Silent(),
        )

    killed(lambda: revision(dying(6)).revised(drafts))
    made = revision().revised(drafts)
    asked = log.read_text().splitlines()
    assert len(asked) == len(set(asked)) == 400
    assert made[3].response == "answer 3, gladly, gladly"
