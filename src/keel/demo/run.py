"""`keel demo`: from noisy raters to a better model on one laptop, with the truth known at the end.

Writes the files of a small help desk (model from scratch, demonstrations, questions, raters as a Python file, recipe)
and hands the recipe to the same pipeline that runs everything else. Then the same PPO is led astray on purpose, once
with guards off and once with guards on.
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from keel.core.config import load_config
from keel.core.files import atomic_directory
from keel.core.progress import Progress
from keel.core.seed import derive
from keel.data.formats import write_jsonl
from keel.demo.guards_page import write_page
from keel.demo.hacking import both_ways, prepare
from keel.demo.story import told, told_of_guards, where_to_look
from keel.demo.tokenizer import build_tokenizer
from keel.demo.world import World
from keel.models.load import save_causal_lm
from keel.stages.pipeline import run
from keel.stages.recipe import Recipe

DEMONSTRATIONS, ENTRIES = 15_000, 4_500
QUICK = (
    "sft.epochs=1",
    "rounds.count=1",
    "rounds.first_comparisons=600",
    "ppo.updates=4",
    "evaluate.prompts=256",
    "reward.best_of=4",
)

JUDGES = '''"""The raters of the help desk, and what is truly better. A recipe's own Python file, like any user's."""

from keel.demo.judging import HelpDesk

desk = HelpDesk(seed={seed})
label = desk.label
true_preference = desk.true_preference
'''

ASSISTANT = '''"""An AI judge and a critic for the help desk: they read tone and focus, and know no facts."""

from keel.demo.ai import Assistant

assistant = Assistant(seed={seed})
judge = assistant.judge
revise = assistant.revise
'''


def main_demo(
    directory: Path, seed: int, overrides: Sequence[str], progress: Progress, *, quick: bool = False
) -> dict[str, Any]:
    """Run the demo in `directory` and return the run's summary; says in plain words what happened."""
    world_folder = directory / f"world-{seed}{'-quick' if quick else ''}"
    if not world_folder.is_dir():
        progress.say(f"Building a help desk with {len(World(seed).facts)} facts in {world_folder}")
        build(world_folder, seed, quick=quick)
    recipe = load_config(Recipe, world_folder / "recipe.yaml", [f"seed={seed}", *(QUICK if quick else ()), *overrides])
    summary = run(recipe, directory, progress, recipe_folder=world_folder)
    for line in told(summary):
        progress.say(line)
    flawed = prepare(directory, summary, seed)
    if flawed is not None:
        guards = both_ways(directory, flawed, recipe.threads, seed, progress, quick=quick)
        write_page(directory / "guards.html", guards)
        for line in told_of_guards(guards):
            progress.say(line)
    progress.say(where_to_look(directory, guards=flawed is not None))
    return summary


def build(folder: Path, seed: int, *, quick: bool = False) -> None:
    """Everything the recipe names, as files."""
    world = World(seed)
    demonstrations, entries = (6_000, 1_800) if quick else (DEMONSTRATIONS, ENTRIES)
    with atomic_directory(folder) as draft:
        write_jsonl(
            draft / "demonstrations.jsonl",
            [*world.demonstrations(demonstrations, seed), *world.encyclopedia(entries, seed)],
        )
        write_jsonl(draft / "questions.jsonl", [q.prompt for q in world.train_questions])
        write_jsonl(draft / "evaluation.jsonl", [q.prompt for q in world.eval_questions])
        (draft / "judges.py").write_text(JUDGES.format(seed=seed))
        (draft / "assistant.py").write_text(ASSISTANT.format(seed=seed))
        for name in ("recipe.yaml", "constitution.yaml"):
            (draft / name).write_text((files("keel.demo") / name).read_text())
        write_model(draft / "model", world, seed)


def write_model(folder: Path, world: World, seed: int) -> None:
    """A stock Llama of about 0.9 million parameters, from scratch."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer(world.vocabulary)
    torch.manual_seed(derive(seed, "demo model"))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.02,
    )
    save_causal_lm(folder, LlamaForCausalLM(config), tokenizer)
