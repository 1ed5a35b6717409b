"""keel's losses on pairs and ratings beside TRL's, on real pairs: `python benchmarks/equality.py [--json]`.

A story model with noise on its weights is the policy, the model itself the reference, so that nothing is zero; both
have float64 weights, so that what differs is not rounding. Every pair of HH's harmless dialogues goes through keel and
through TRL's own trainers, which run in an environment of their own, as for `compare.py`. What is printed is the
largest difference of the loss of a pair (KTO: of a batch of ratings, which share their z0), of losses above 1 as a
share. Exits with 1 where one is above `--tolerance`.

TRL's IPO divides log-ratios by the length of the response, the paper's equations and keel do not: there keel's loss is
given the divided ones. TRL's ORPO imitates the prompt as well; the pairs that ORPO is compared on therefore begin
behind the first token, so that nothing but the response is imitated. TRL's DPO leaves label_smoothing out of its
sigmoid loss, so that conservative DPO has no counterpart.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "src")]

import torch  # noqa: E402
from peers.environment import TRL, ensure  # noqa: E402
from torch import Tensor  # noqa: E402

from keel.algorithms.kto import KTO  # noqa: E402
from keel.algorithms.preference import pair_losses, what_is_compared  # noqa: E402
from keel.algorithms.settings import DPOConfig, IPOConfig, KTOConfig, ORPOConfig, SimPOConfig  # noqa: E402
from keel.batch.collate import EncodedPair, EncodedRating, pair_batch, rating_batch  # noqa: E402
from keel.batch.types import PreferenceBatch, widen  # noqa: E402
from keel.data.formats import DataConfig, read_comparisons  # noqa: E402
from keel.functional import preference_losses  # noqa: E402
from keel.models.load import load_causal_lm, load_tokenizer, save_causal_lm  # noqa: E402
from keel.stages.encode import Fitting, encode_comparisons  # noqa: E402
from keel.stages.referred import sequence_logprobs  # noqa: E402

SHARED = ROOT.parent / "shared"
RATING_BATCH = 8
METHODS: dict[str, dict[str, Any]] = {
    "dpo": {"beta": 0.1},
    "dpo label_noise": {"beta": 0.1, "label_smoothing": 0.1, "loss_type": ["robust"]},
    "ipo divided by length": {"beta": 0.1, "loss_type": ["ipo"]},
    "simpo": {"beta": 2.0, "simpo_gamma": 1.0, "loss_type": "simpo", "cpo_alpha": 0.0},
    "orpo": {"beta": 0.5},
    "kto": {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.3},
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="equality.py", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=SHARED / "models" / "stories260k", help="folder with a model")
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "hh-harmless-base" / "train.jsonl.gz")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--noise", type=float, default=0.005, help="of the policy's weights, standard deviation")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache", help="where TRL's environment is kept")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def ours(
    policy: Any, reference: Any, pairs: Sequence[EncodedPair], whole: Sequence[EncodedPair], ratings: Any
) -> dict[str, Tensor]:
    """keel's losses by method."""
    batch = pair_batch(pairs)
    batch = widen(batch, PreferenceBatch, sequence_ref_logprobs=sequence_logprobs(reference, batch, 4096))
    said = sequence_logprobs(policy, batch, 4096)

    def losses(config: Any) -> Tensor:
        return pair_losses(config, what_is_compared(config, said, batch), batch)

    divided = (said - batch.sequence_ref_logprobs) / batch.response_lengths
    alone = pair_batch(whole)
    orpo = ORPOConfig(odds_weight=METHODS["orpo"]["beta"])
    kto_losses = []
    algorithm = KTO(policy, KTOConfig(**METHODS["kto"]), 4096)
    for at in range(0, len(ratings), RATING_BATCH):
        some = ratings[at : at + RATING_BATCH]
        unknown = rating_batch(some, torch.zeros(2 * len(some)))
        rows: Any = algorithm.prepare(rating_batch(some, sequence_logprobs(reference, unknown, 4096)))
        terms = algorithm.terms(sequence_logprobs(policy, rows, 4096), rows)
        kto_losses.append(terms.total / terms.count)
    return {
        "dpo": losses(DPOConfig()),
        "dpo label_noise": losses(DPOConfig(label_noise=0.1)),
        "ipo": losses(IPOConfig()),
        "ipo divided by length": preference_losses.ipo(divided[0::2], divided[1::2], batch.preference, 0.1),
        "simpo": losses(SimPOConfig(beta=2.0, gamma=1.0)),
        "orpo": pair_losses(orpo, what_is_compared(orpo, sequence_logprobs(policy, alone, 4096), alone), alone),
        "kto": torch.stack(kto_losses),
    }


def ratings_of(pairs: Sequence[EncodedPair]) -> list[EncodedRating]:
    """Chosen responses with thumbs up, rejected ones down; beside each the response of the next pair."""
    return [
        EncodedRating(prompt=pair.prompt, response=side, unrelated=other, desirable=up)
        for pair, following in zip(pairs, [*pairs[1:], pairs[0]], strict=True)
        for side, other, up in ((pair.a, following.a, 1.0), (pair.b, following.b, 0.0))
    ]


def apart(mine: Tensor, theirs: Sequence[float]) -> float:
    """The largest difference, as a share of losses that are larger than 1."""
    expected = torch.tensor(theirs, dtype=torch.float64)
    return float(((mine - expected).abs() / expected.abs().clamp(min=1)).max())


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(options.model)
    records = read_comparisons(DataConfig(path=str(options.data), limit=20 * options.pairs, on_error="drop"))
    fitted = encode_comparisons(records, tokenizer, Fitting(max_tokens=256, policy="drop"))
    pairs = [
        EncodedPair(prompt=p.prompt, a=p.a, b=p.b, preference=1.0) if p.preference > 0.5
        else EncodedPair(prompt=p.prompt, a=p.b, b=p.a, preference=1.0)
        for p in fitted if p is not None
    ][: options.pairs]  # fmt: skip
    whole = [
        EncodedPair(prompt=p.prompt[:1], a=[*p.prompt[1:], *p.a], b=[*p.prompt[1:], *p.b], preference=1.0)
        for p in pairs
    ]
    ratings = ratings_of(pairs)
    reference, policy = (load_causal_lm(options.model, device="cpu", verify=False).double().eval() for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(options.noise * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    mine = ours(policy, reference, pairs, whole, ratings)

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        save_causal_lm(place / "policy", policy, tokenizer)
        job = {
            "policy": str(place / "policy"),
            "reference": str(options.model),
            "methods": METHODS,
            "pairs": [{"prompt": list(p.prompt), "chosen": list(p.a), "rejected": list(p.b)} for p in pairs],
            "from_the_start": [{"prompt": list(p.prompt), "chosen": list(p.a), "rejected": list(p.b)} for p in whole],
            "ratings": [asdict(rating) for rating in ratings],
            "rating_batch": RATING_BATCH,
        }
        (place / "job.json").write_text(json.dumps(job))
        command = [
            str(ensure(TRL, options.cache.resolve())),
            str(HERE / "peers" / "trl_losses.py"),
            "job.json",
            "record.json",
        ]
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(place / "cache"), "TRL_EXPERIMENTAL_SILENCE": "1"}
        subprocess.run(command, cwd=place, env={**os.environ, **offline}, check=True)
        theirs = json.loads((place / "record.json").read_text())

    found = {
        name: {
            "losses": len(losses),
            "mean": float(mine[name].mean()),
            "difference": apart(mine[name], losses),
        }
        for name, losses in theirs.items()
    }
    record = {
        "peer": TRL.folder,
        "pairs": len(pairs),
        "methods": found,
        "ipo_as_published": float(mine["ipo"].mean()),
        "passed": all(figures["difference"] <= options.tolerance for figures in found.values()),
    }
    if options.json:
        sys.stdout.write(json.dumps(record) + "\n")
    else:
        for name, figures in found.items():
            sys.stdout.write(
                f"{name:24} mean {figures['mean']:.4f}, largest difference {figures['difference']:.1e} "
                f"over {figures['losses']}\n"
            )
    return 0 if record["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
