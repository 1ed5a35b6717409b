"""Who may judge: no policy itself, unless somebody says why."""

import shutil
from types import SimpleNamespace

import pytest
from helpers.recipes import model_folder

from keel.core.config import load_config
from keel.core.errors import ConfigError, GateError
from keel.core.progress import Silent
from keel.models.settings import ModelConfig
from keel.stages.feedback.judges import EndpointJudge, PythonJudge
from keel.stages.feedback.local import LocalJudge
from keel.stages.feedback.opening import open_labeller, refuse_own_answers
from keel.stages.sections.feedback import FeedbackConfig


def feedback(judge, **settings) -> FeedbackConfig:
    return load_config(FeedbackConfig, None, base={"judge": judge, **settings})


def opened(folder, config, policy="unused"):
    run = SimpleNamespace(directory=folder / "run", recipe_folder=folder, seed=0, progress=Silent())
    return open_labeller(run, config, ModelConfig(path=str(policy), device="cpu"), None)


URL = {"url": "http://localhost:1/v1", "model": "Qwen2.5-0.5B"}


def test_each_kind_of_judge_is_opened(tmp_path):
    (tmp_path / "judges.py").write_text("def judge(questions):\n    return [0.5 for _ in questions]\n")
    model = model_folder(tmp_path / "model")
    assert isinstance(opened(tmp_path, feedback({"python": "judges.py:judge"})).judge, PythonJudge)
    assert isinstance(opened(tmp_path, feedback({"endpoint": URL})).judge, EndpointJudge)
    local = opened(tmp_path, feedback({"path": str(model)})).judge
    assert isinstance(local, LocalJudge)


def test_a_copy_of_the_weights_is_the_same_model(tmp_path):
    model = model_folder(tmp_path / "model")
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "README.md").write_text("quite another model")
    other = model_folder(tmp_path / "other", seed=1)
    for judge in (model, copy):
        with pytest.raises(GateError, match="is the model that is trained"):
            opened(tmp_path, feedback({"path": str(judge)}), model)
    opened(tmp_path, feedback({"path": str(other)}), model)
    reason = "we measure how much it prefers its own"
    opened(tmp_path, feedback({"path": str(copy)}, allow_self_judging=reason), model)


def test_a_policy_of_the_same_run_may_not_judge_it(tmp_path):
    made = model_folder(tmp_path / "run" / "artifacts" / "sft-1" / "model", seed=1)
    with pytest.raises(GateError, match="is the model that is trained"):
        opened(tmp_path, feedback({"path": str(made)}), model_folder(tmp_path / "model"))


def test_a_served_model_of_the_policys_name_is_the_same_model(tmp_path):
    with pytest.raises(GateError, match=r"Qwen2.5-0.5B at http.* is the model that is trained \(Qwen/qwen2.5-0.5b\)"):
        opened(tmp_path, feedback({"endpoint": URL}), "Qwen/qwen2.5-0.5b")
    opened(tmp_path, feedback({"endpoint": URL}), "Qwen/Qwen2.5-1.5B")


def test_a_model_of_the_hub_is_the_same_as_its_download(tmp_path):
    policy = model_folder(tmp_path / "Tiny-0.5B")
    with pytest.raises(GateError, match=r"somebody/tiny-0\.5b is the model that is trained"):
        opened(tmp_path, feedback({"path": "somebody/tiny-0.5b"}), policy)


def test_pairs_with_answers_of_the_judge_are_refused():
    config = feedback({"endpoint": URL})
    refuse_own_answers(config, {"", "gpt-2"}, "pairs.jsonl")
    with pytest.raises(GateError, match=r"pairs.jsonl holds answers of Qwen/Qwen2.5-0.5B, which is the judge"):
        refuse_own_answers(config, {"Qwen/Qwen2.5-0.5B", "gpt-2"}, "pairs.jsonl")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"judge": {}}, "give exactly one of"),
        ({"judge": {"path": "x", "python": "y.py:z"}}, "give exactly one of"),
        ({"judge": {"endpoint": URL}, "budget_usd": 5}, "0 is a price too"),
        ({"judge": {"path": "x"}, "allow_self_judging": "because"}, "at least 10 characters"),
        ({"judge": {"path": "x"}, "comparisons": 5, "pairs": {"path": "y"}}, "Keep one of them"),
        ({"judge": {"path": "x"}, "temprature": 2}, "Did you mean 'temperature'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_config(FeedbackConfig, None, base=settings)
