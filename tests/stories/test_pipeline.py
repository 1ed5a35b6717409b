"""SFT, reward model, PPO and evaluation on tiny clones of the decoders people use."""

import json
import math

import pytest
import torch
from helpers.recipes import Workplace
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from keel.batch.collate import EncodedResponse, token_batch
from keel.batch.pack import pack
from keel.models.load import load_causal_lm
from keel.models.packed import token_logprobs
from keel.models.reward import RewardModel

CLONES = {"Llama 3.1": "llama", "Mistral": "mistral", "Qwen 2.5": "qwen2", "Gemma": "gemma2"}
PROMISED = {
    "sft": {"perplexity"},
    "reward": {
        *("accuracy", "accuracy_low", "accuracy_high", "baseline_longer", "baseline_bag_of_words"),
        *("ece", "verdict"),
    },
    "ppo": {
        *("score_before", "score_after", "kl_nats_per_token", "kl_nats_per_sequence"),
        *("distinct_2", "entropy", "updates"),
    },
    "evaluate": {"true_win_rate", "true_win_rate_low", "true_win_rate_high"},
}
"""What the issue promises of summary.json."""
TRUTH = """
def thanks(prompts, responses, finished):
    return [response.split().count("thank") + 0.001 * len(response) for response in responses]
"""
STAGES = ["data demonstrations", "data comparisons", "data prompts", "sft", "reward", "best of 2", "ppo", "evaluate"]
PROMPT, RESPONSE = [1, 15, 16, 17, 20], [30, 31, 18, 40, 2]


@pytest.fixture(scope="module", params=CLONES.values(), ids=CLONES.keys())
def ran(request, tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp(request.param), request.param)
    place.write("truth.py", TRUTH)
    return place.run(page=True, evaluate={"preference": "truth.py:thanks"})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("place"))


def test_a_run_leaves_a_summary_with_every_promised_figure_and_a_page(ran):
    summary = json.loads((ran.directory / "summary.json").read_text())
    assert summary == json.loads(json.dumps(ran.summary))
    for stage, names in PROMISED.items():
        found = summary["stages"][stage]
        assert names <= found.keys(), stage
        assert all(isinstance(found[n], str) or math.isfinite(found[n]) for n in names), stage
    assert summary["seconds"] > 0
    assert summary["peak_rss_bytes"] > 1e8
    assert ran.trained() == STAGES
    page = (ran.directory / "report.html").read_text()
    assert "<svg" in page or "data:image" in page
    assert {"recipe.yaml", "events.jsonl", "artifacts"} <= {path.name for path in ran.directory.iterdir()}


@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_a_policy_loads_in_plain_transformers_with_equal_outputs(ran, stage):
    folder = ran.artifact(stage).path / "model"
    batch = token_batch([PROMPT], [[EncodedResponse(tokens=RESPONSE)]])
    ours, _ = token_logprobs(load_causal_lm(folder).double(), pack(batch))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    ids = torch.tensor([PROMPT + RESPONSE])
    theirs = plain(ids).logits.log_softmax(-1)[0, len(PROMPT) - 1 : -1].gather(1, ids[0, len(PROMPT) :, None])[:, 0]
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    assert AutoTokenizer.from_pretrained(folder).eos_token_id == 2


def test_a_reward_model_loads_in_plain_transformers_with_equal_scores(ran):
    folder = ran.artifact("reward").path / "model"
    ours = RewardModel.load(folder)
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for response in (RESPONSE, [21, 22, 2]):
        batch = token_batch([PROMPT], [[EncodedResponse(tokens=response)]])
        theirs = plain(torch.tensor([PROMPT + response])).logits[0, 0]
        torch.testing.assert_close(ours.score(pack(batch))[0], theirs, atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft, reading its own model
@pytest.mark.parametrize("name", CLONES.values(), ids=CLONES.keys())
def test_adapters_load_in_peft_onto_the_model_they_were_trained_on(tmp_path, name):
    place = Workplace(tmp_path, name)
    lora = {"lora": {"rank": 2, "alpha": 8}}
    ran = place.run(sft=lora, reward=lora, ppo={**lora, "keep": "last", "ppo": {"critic": "trunk"}}, evaluate=None)
    base, ids = tmp_path / "model", torch.tensor([PROMPT + RESPONSE])
    for stage in ("sft", "ppo"):
        made = ran.artifact(stage).path
        plain = AutoModelForCausalLM.from_pretrained(base)
        adapted = PeftModel.from_pretrained(plain, made / "adapter").eval()
        merged = AutoModelForCausalLM.from_pretrained(made / "model").eval()
        torch.testing.assert_close(adapted(ids).logits, merged(ids).logits, atol=1e-4, rtol=0)
        assert not torch.equal(merged(ids).logits, AutoModelForCausalLM.from_pretrained(base)(ids).logits)
        base = made / "model"


def test_a_second_run_trains_nothing_and_reports_the_same(place):
    first = place.run()
    again = place.run()
    assert again.trained() == STAGES
    reused = [event["stage"] for event in again.events("stage_finished") if event["reused"]]
    assert reused == STAGES
    for stage, figures in first.stages.items():
        assert again.stages[stage] == figures


def test_a_change_of_one_stage_reruns_it_and_what_follows(place):
    before = place.run()
    already = len(before.trained())
    after = place.run(["ppo.kl.initial=0.5"])
    assert after.trained()[already:] == ["ppo", "evaluate"]
    assert after.stages["ppo"]["artifact"] != before.stages["ppo"]["artifact"]
    back = place.run()
    assert back.trained()[already:] == ["ppo", "evaluate"], "the first artifacts are still there"
    assert back.stages["ppo"]["artifact"] == before.stages["ppo"]["artifact"]


@pytest.mark.parametrize(
    ("only", "stages"),
    [("sft", ["sft"]), ("reward", ["sft", "reward"]), ("ppo", ["sft", "reward", "ppo"])],
)
def test_a_run_can_stop_after_any_stage(place, only, stages):
    ran = place.run(only=only, to=f"only {only}", page=only == "sft")
    assert list(ran.stages) == stages
    assert (ran.directory / "report.html").is_file() == (only == "sft")
