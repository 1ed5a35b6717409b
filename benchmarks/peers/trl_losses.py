"""TRL's losses of given responses, in TRL's own environment: `python trl_losses.py JOB RECORD`.

JOB holds pairs as token ids, the folders of a policy and of its reference, and the settings of each loss. The losses
come out of TRL's trainers as they are: their collators, forward passes and loss functions; nothing is trained.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForCausalLM, AutoTokenizer

Pair = dict[str, list[int]]


def main(job: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        return {name: LOSSES[name.split()[0]](job, name, folder) for name in job["methods"]}


def arguments(folder: str, **more: Any) -> dict[str, Any]:
    off = {"gradient_checkpointing": False, "bf16": False, "use_cpu": True, "report_to": "none", "save_strategy": "no"}
    return {"output_dir": folder, "disable_tqdm": True, "remove_unused_columns": False, **off, **more}


def network(path: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()


def on_token_ids(trainer: type) -> type:
    """The trainer, which leaves rows that are token ids already as they are."""

    class OnTokenIds(trainer):  # type: ignore[misc, valid-type]
        def _prepare_dataset(self, dataset: Dataset, *args: Any, **more: Any) -> Dataset:
            return dataset

    return OnTokenIds


@torch.no_grad()
def one_by_one(trainer: Any, rows: list[dict[str, Any]], size: int = 1) -> list[float]:
    """The loss of every `size` rows."""
    trainer.model.eval()
    batches = [trainer.data_collator(rows[i : i + size]) for i in range(0, len(rows), size)]
    return [float(trainer.compute_loss(trainer.model, batch)) for batch in batches]


def dpo(job: dict[str, Any], name: str, folder: str) -> list[float]:
    from trl import DPOConfig, DPOTrainer

    rows = [{"prompt_ids": p["prompt"], "chosen_ids": p["chosen"], "rejected_ids": p["rejected"]} for p in job["pairs"]]
    trainer = on_token_ids(DPOTrainer)(
        model=network(job["policy"]),
        ref_model=network(job["reference"]),
        args=DPOConfig(**arguments(folder, max_length=None, **job["methods"][name])),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(job["policy"]),
    )
    return one_by_one(trainer, rows)


def kto(job: dict[str, Any], name: str, folder: str) -> list[float]:
    """Of batches of ratings, each beside a response to another prompt."""
    from trl import KTOConfig, KTOTrainer

    names = {"prompt_ids": "prompt", "completion_ids": "response", "KL_completion_ids": "unrelated"}
    rows = [
        {**{own: rating[name] for own, name in names.items()}, "label": rating["desirable"] > 0.5}
        for rating in job["ratings"]
    ]
    trainer = on_token_ids(KTOTrainer)(
        model=network(job["policy"]),
        ref_model=network(job["reference"]),
        args=KTOConfig(
            **arguments(folder, max_length=None, train_sampling_strategy="sequential", **job["methods"][name])
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(job["policy"]),
    )
    return one_by_one(trainer, rows, job["rating_batch"])


def with_sides(pair: Pair) -> dict[str, torch.Tensor]:
    """A batch of one pair as ORPOTrainer and CPOTrainer collate it."""
    batch = {}
    for side in ("chosen", "rejected"):
        row = torch.tensor([pair["prompt"] + pair[side]])
        batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"] = row, torch.ones_like(row)
        batch[f"{side}_labels"] = row.clone()
        batch[f"{side}_labels"][:, : len(pair["prompt"])] = -100
    return batch


def without_reference(trainer_of: Callable[[], tuple[type, type]]) -> Callable[..., list[float]]:
    def losses(job: dict[str, Any], name: str, folder: str) -> list[float]:
        trainer_class, config_class = trainer_of()
        tokenizer = AutoTokenizer.from_pretrained(job["policy"])
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        rows = [{"prompt": "a", "chosen": " b", "rejected": " c"}]
        trainer = trainer_class(
            model=network(job["policy"]),
            args=config_class(**arguments(folder, **job["methods"][name])),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.model.eval()
        pairs = job["from_the_start"] if name.startswith("orpo") else job["pairs"]
        with torch.no_grad():
            return [float(trainer.get_batch_loss_metrics(trainer.model, with_sides(pair))[0]) for pair in pairs]

    return losses


def orpo() -> tuple[type, type]:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    return ORPOTrainer, ORPOConfig


def cpo() -> tuple[type, type]:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    return CPOTrainer, CPOConfig


LOSSES: dict[str, Callable[..., list[float]]] = {
    "dpo": dpo,
    "ipo": dpo,
    "kto": kto,
    "orpo": without_reference(orpo),
    "simpo": without_reference(cpo),
}

if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
