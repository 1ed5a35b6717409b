"""TRL's side of a comparison, in TRL's own environment: `python trl_side.py JOB RECORD`.

Everything that costs time and is not needed is off (gradient checkpointing, saving, reporting), the optimiser is the
fused AdamW with keel's settings, batches come in keel's order.
"""

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import GROUPED, Job, Meter, write_record
from datasets import Dataset, disable_progress_bars
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)


class Clock(TrainerCallback):
    """Measures at the end of every step; `tokens` tells what the step's real tokens were."""

    def __init__(self, job: Job, tokens: list[int]) -> None:
        self.meter, self.tokens = Meter(job), tokens

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.meter.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if len(self.meter.tokens) < self.meter.job.total:
            self.meter.step(self.tokens[len(self.meter.tokens)])

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        if logs and "loss" in logs:
            self.meter.losses.append(float(logs["loss"]))


def main(job: Job) -> dict[str, Any]:
    torch.set_num_threads(job.threads)
    disable_progress_bars()
    runs = {
        "sft": sft,
        "reward": reward,
        "dpo": dpo,
        "rloo": grouped,
        "grpo": grouped,
        "ppo": ppo,
        "rollout": rollout,
    }
    with tempfile.TemporaryDirectory() as folder:
        meter = runs[job.stage](job, folder)
    return meter.record("transformers generate" if job.stage == "rollout" else "trl")


def common_arguments(job: Job, folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": job.batch,
        "gradient_accumulation_steps": 1,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "adam_beta2": 0.95,
        "adam_epsilon": 1e-5,
        "max_grad_norm": 1.0,
        "gradient_checkpointing": False,
        "bf16": job.dtype == "bfloat16",
        "use_cpu": job.device == "cpu",
        "dataloader_pin_memory": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "seed": job.seed,
    }


def tokenizer_of(job: Job) -> Any:
    return AutoTokenizer.from_pretrained(job.model, padding_side="left" if job.stage in (*GROUPED, "ppo") else "right")


def causal_lm(job: Job) -> Any:
    """Weights in float32 for training, which mixed precision keeps; in the job's own for sampling alone."""
    dtype = getattr(torch, job.dtype) if job.stage == "rollout" else torch.float32
    return AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype).to(job.device)


def classifier(job: Job) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(job.reward_model, num_labels=1, dtype=torch.float32)


def lora(job: Job, task: str) -> Any:
    if not job.lora_rank:
        return None
    from peft import LoraConfig

    where: dict[str, Any] = {"target_modules": "all-linear"}
    if job.last_layers:
        layers = AutoConfig.from_pretrained(job.model).num_hidden_layers
        where = {
            "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            "layers_to_transform": list(range(layers))[-job.last_layers :],
            "layers_pattern": "layers",
        }
    return LoraConfig(r=job.lora_rank, lora_alpha=2 * job.lora_rank, task_type=task, **where)


def by_step(job: Job, tokens: list[int]) -> list[int]:
    """Sums over the records of each step."""
    return [sum(tokens[i * job.batch : (i + 1) * job.batch]) for i in range(job.total)]


def sft(job: Job, folder: str) -> Meter:
    from trl import SFTConfig, SFTTrainer

    records = job.in_order()
    rows = [
        {"input_ids": r["prompt"] + r["chosen"], "labels": [-100] * len(r["prompt"]) + r["chosen"]} for r in records
    ]
    clock = Clock(job, by_step(job, [len(row["input_ids"]) for row in rows]))
    trainer = SFTTrainer(
        model=causal_lm(job),
        args=SFTConfig(
            **common_arguments(job, folder),
            max_steps=job.total,
            max_length=None,
            padding_free=job.setting == "padding_free",
            train_sampling_strategy="sequential",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer_of(job),
        callbacks=[clock],
        peft_config=lora(job, "CAUSAL_LM"),
    )
    trainer.train()
    return clock.meter


def reward(job: Job, folder: str) -> Meter:
    from trl import RewardConfig, RewardTrainer

    rows = [
        {"chosen_ids": r["prompt"] + r["chosen"], "rejected_ids": r["prompt"] + r["rejected"]} for r in job.in_order()
    ]
    clock = Clock(job, by_step(job, [len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows]))
    trainer = RewardTrainer(
        model=classifier(job),
        args=RewardConfig(
            **common_arguments(job, folder),
            max_steps=job.total,
            max_length=None,
            center_rewards_coefficient=0.01,
            train_sampling_strategy="sequential",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer_of(job),
        callbacks=[clock],
        peft_config=lora(job, "SEQ_CLS"),
    )
    trainer.train()
    return clock.meter


def dpo(job: Job, folder: str) -> Meter:
    """The reference's log-probabilities are computed in the trainer's constructor, before the clock starts, as keel's
    are; otherwise every step would pay for a second forward pass. `padding_free` is refused by this release (it warns
    and pads). The pairs come as token ids, so that both sides read the same ones.
    """
    from trl import DPOConfig, DPOTrainer

    class OnTokenIds(DPOTrainer):
        def _prepare_dataset(self, dataset: Dataset, *args: Any, **more: Any) -> Dataset:
            return dataset

    rows = [
        {"prompt_ids": r["prompt"], "chosen_ids": r["chosen"], "rejected_ids": r["rejected"]} for r in job.in_order()
    ]
    tokens = [2 * len(r["prompt_ids"]) + len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in rows]
    clock = Clock(job, by_step(job, tokens))
    trainer = OnTokenIds(
        model=causal_lm(job),
        args=DPOConfig(
            **common_arguments(job, folder),
            max_steps=job.total,
            max_length=None,
            beta=0.1,
            precompute_ref_log_probs=True,
            train_sampling_strategy="sequential",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer_of(job),
        callbacks=[clock],
        peft_config=lora(job, "CAUSAL_LM"),
    )
    trainer.train()
    return clock.meter


def grouped(job: Job, folder: str) -> Meter:
    """RLOO and GRPO; the latter as published (`loss_type`), with the same weight of its KL."""
    import trl

    config, trainer_class = (
        (trl.RLOOConfig, trl.RLOOTrainer)
        if job.stage == "rloo"
        else (partial(trl.GRPOConfig, loss_type="grpo"), trl.GRPOTrainer)
    )
    records, tokenizer = job.in_order(), tokenizer_of(job)
    clock = Clock(job, [0] * job.total)
    trainer = trainer_class(
        model=causal_lm(job),
        reward_funcs=classifier(job),
        args=config(
            **{**common_arguments(job, folder), "per_device_train_batch_size": job.batch * job.samples},
            max_steps=job.total,
            num_generations=job.samples,
            num_iterations=job.epochs,
            max_completion_length=job.max_new_tokens,
            beta=0.05,
            shuffle_dataset=False,
        ),
        train_dataset=Dataset.from_list([{"prompt": r["prompt_text"]} for r in records]),
        processing_class=tokenizer,
        callbacks=[clock],
        peft_config=lora(job, "CAUSAL_LM"),
    )
    trainer.train()
    seen = [entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry]
    clock.meter.tokens = [int(b - a) for a, b in zip([0, *seen], seen, strict=False)]
    return clock.meter


def value_model(job: Job) -> Any:
    """With LoRA it has adapters too, and trains its head; TRL's `peft_config` is for the policy alone."""
    model = classifier(job)
    if job.lora_rank:
        from peft import inject_adapter_in_model

        inject_adapter_in_model(lora(job, "SEQ_CLS"), model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name or name.startswith("score"))
    return model


def ppo(job: Job, folder: str) -> Meter:
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    tokenizer = tokenizer_of(job)
    rows = [{"input_ids": r["prompt"]} for r in job.in_order()]
    policy = causal_lm(job)
    clock = Clock(job, by_step(job, [len(row["input_ids"]) + job.max_new_tokens for row in rows]))
    data = Dataset.from_list(rows)
    trainer = PPOTrainer(
        args=PPOConfig(
            **common_arguments(job, folder),
            total_episodes=job.batch * job.total,
            num_ppo_epochs=job.epochs,
            num_mini_batches=1,
            local_rollout_forward_batch_size=job.batch,
            num_sample_generations=0,
            response_length=job.max_new_tokens,
            temperature=1.0,
            stop_token="eos",
            kl_coef=0.05,
        ),
        processing_class=tokenizer,
        model=policy,
        ref_model=None if job.lora_rank else causal_lm(job),
        reward_model=classifier(job),
        value_model=value_model(job),
        train_dataset=data,
        eval_dataset=data,
        callbacks=[clock],
        peft_config=lora(job, "CAUSAL_LM"),
    )
    in_order = DataLoader(data, batch_size=job.batch, collate_fn=trainer.data_collator)
    trainer.dataloader = trainer.accelerator.prepare(in_order)
    trainer.train()
    return clock.meter


@torch.no_grad()
def rollout(job: Job, folder: str) -> Meter:
    """`generate` of plain transformers, as TRL's online trainers call it; without log-probabilities."""
    tokenizer, model = AutoTokenizer.from_pretrained(job.model, padding_side="left"), causal_lm(job).eval()
    records, endings = job.in_order(), model.generation_config.eos_token_id
    stops = torch.tensor(endings if isinstance(endings, list) else [endings], device=job.device)
    torch.manual_seed(job.seed)
    meter = Meter(job)
    meter.begin()
    for i in range(job.total):
        rows = records[i * job.batch : (i + 1) * job.batch]
        inputs = tokenizer.pad(
            {"input_ids": [r["prompt"] for r in rows for _ in range(job.samples)]}, return_tensors="pt"
        ).to(job.device)
        out = model.generate(
            **inputs, max_new_tokens=job.max_new_tokens, do_sample=True, top_k=0, top_p=1.0, temperature=1.0
        )
        said = out[:, inputs["input_ids"].shape[1] :]
        ended = torch.isin(said, stops)
        lengths = torch.where(ended.any(1), ended.int().argmax(1) + 1, said.shape[1])
        meter.step(int(lengths.sum()))
    return meter


if __name__ == "__main__":
    write_record(Path(sys.argv[2]), main(Job.load(Path(sys.argv[1]))))
