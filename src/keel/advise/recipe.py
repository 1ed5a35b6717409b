"""The recipe of an advised method: the user's paths, and settings by model size and memory."""

from typing import Any

from keel.advise.choose import Advice
from keel.advise.facts import Facts

MISSING = "FILL-IN"
"""Stands for a path that nobody has given yet."""
LEAST_NOISE = 0.03
"""Share of wrong labels below which the loss is not told."""

# Full fine-tuning and LoRA. Below 50 million parameters: what keel's own recipes were tuned to. From a billion on: 2e-5
# and 2e-4 (alignment-handbook), 9e-6 (InstructGPT), 5e-7 and 5e-6 (Zephyr), 3e-6 (N+, 2403.17031). Between: in between.
RATES = {
    "tiny": {"sft": (6e-4, 2e-3), "reward": (6e-4, 2e-3), "prefer": (2e-5, 2e-4), "ppo": (2e-4, 6e-4)},
    "small": {"sft": (2e-5, 2e-4), "reward": (1e-5, 1e-4), "prefer": (1e-6, 1e-5), "ppo": (1e-5, 2e-5)},
    "large": {"sft": (2e-5, 2e-4), "reward": (9e-6, 1e-4), "prefer": (5e-7, 5e-6), "ppo": (3e-6, 1e-5)},
}
CHECKS: dict[str, dict[str, Any]] = {
    "maths": {"maths": {}},
    "code": {"code": {}},
    "tags": {"tags": {}},
    "json": {"json_object": {}},
    "text": {"text": {"ends_properly": True}},
}
"""What `--verifier` may name, and the part of the score that it stands for."""
ONLINE = ("ppo", "rloo", "grpo", "reinforce_pp", "online_dpo", "hybrid")
OFFLINE = ("dpo", "ipo", "simpo", "orpo", "kto", "iterative_dpo", "hybrid", "rlaif", "cai")
WORDS = {"rlaif": "dpo", "cai": "dpo"}
"""What `method` says where it is not the name itself."""


def size_of(facts: Facts) -> str:
    return "tiny" if facts.model.parameters < 5e7 else "small" if facts.model.parameters < 1e9 else "large"


class Draft:
    """One recipe in the making."""

    def __init__(self, advice: Advice) -> None:
        assert advice.method is not None
        assert advice.fit is not None
        self.facts, self.name, self.fit = advice.facts, advice.method.name, advice.fit
        self.rung = advice.fit.rung
        self.longest = 128 if self.facts.model.parameters < 5e7 else 512
        self.tokens = 256 if self.facts.model.parameters < 5e7 else 1024

    def stage(self, section: str, **settings: Any) -> dict[str, Any]:
        """A section with its rate, and adapters where memory asks for them."""
        rate = RATES[size_of(self.facts)][section][self.rung.lora]
        optim: dict[str, Any] = {"learning_rate": rate}
        if self.rung.adamw8bit:
            optim["name"] = "adamw8bit"
        out = dict(settings)
        if self.rung.lora:
            out["lora"] = {"rank": 16, "alpha": 32}
        return {**out, "optim": optim}

    def model(self) -> dict[str, Any]:
        found: dict[str, Any] = {"path": self.facts.model.path or MISSING, "dtype": self.rung.dtype}
        if self.rung.quantise:
            found["quantise"] = "4bit"
        if self.rung.checkpointing:
            found["gradient_checkpointing"] = True
        return found

    def data(self) -> dict[str, Any]:
        """What the method reads. Without demonstrations a base model is fine-tuned on the preferred responses."""
        facts, found = self.facts, {}
        counts = {
            kind: getattr(facts.data, kind)
            for kind in ("demonstrations", "comparisons", "ratings", "prompts", "golden")
        }
        wanted = [kind for kind, count in counts.items() if count]
        if self.name == "kto":
            wanted = [kind for kind in wanted if kind != ("comparisons" if facts.data.ratings else "ratings")]
        elif "ratings" in wanted:
            wanted.remove("ratings")
        if not facts.usable or not self.reads_comparisons:
            wanted = [kind for kind in wanted if kind not in ("comparisons", "golden")]
        for kind in wanted:
            found[kind] = {"path": facts.data.path(kind) or MISSING}
        if self.fine_tunes and "demonstrations" not in found:
            found["demonstrations"] = {"path": facts.data.path("comparisons") or MISSING}
        if "golden" in found:
            found["golden"]["holdout"] = 0.0
        if facts.override and "comparisons" in found:
            found["override_agreement"] = facts.override
        return {**found, "max_tokens": self.tokens}

    @property
    def reads_comparisons(self) -> bool:
        return self.name not in ("sft", "rlaif", "cai") and not (
            "verifiable" in self.facts.rewards and self.name in ONLINE
        )

    @property
    def fine_tunes(self) -> bool:
        """Whether SFT comes first: on demonstrations, or for a base model on preferred responses."""
        facts = self.facts
        if self.name in ("orpo", "cai"):
            return False
        return facts.data.demonstrations > 0 or (not facts.model.chat and facts.usable > 0)

    @property
    def learns_a_reward(self) -> bool:
        """Whether a reward model is trained."""
        asked = self.name in (*ONLINE, "best_of_n", "rejection") or (
            self.name == "iterative_dpo" and not self.facts.fresh
        )
        return asked and "verifiable" not in self.facts.rewards and self.facts.usable > 0

    @property
    def asks_a_model(self) -> bool:
        """Whether a model judges."""
        facts = self.facts
        alone = not (facts.usable or facts.fresh or "verifiable" in facts.rewards)
        return self.name in ("rlaif", "cai") or (self.name == "iterative_dpo" and alone)

    def prefer(self) -> dict[str, Any]:
        algorithm = self.name if self.name in ("ipo", "simpo", "orpo", "kto") else "dpo"
        section = self.stage("prefer", algorithm=algorithm, epochs=1, batch=32, max_new_tokens=self.longest)
        found = self.facts.data.agreement
        if self.name == "hybrid" or (self.name == "iterative_dpo" and not self.facts.usable):
            section["pairs"] = "fresh"
        if algorithm == "dpo":
            section["dpo"] = {"beta": 0.1}
            if found is not None and found.label_noise >= LEAST_NOISE and self.reads_comparisons:
                section["dpo"]["label_noise"] = round(min(found.label_noise, 0.4), 2)
        return section

    def rl(self) -> dict[str, Any]:
        algorithm = "ppo" if self.name == "hybrid" else self.name
        small = not self.facts.hardware.gpus
        section: dict[str, Any] = {
            "algorithm": algorithm,
            "updates": 50 if small else 200,
            "prompts": 32 if small else 64,
            "samples": 4,
            "max_new_tokens": self.longest,
            "rewards": [self.part()],
            "evaluate_prompts": 64,
        }
        if algorithm == "grpo":
            section["grpo"] = {"preset": "dr_grpo"}
            section["kl"] = {"controller": "fixed", "initial": 0.01}
        if algorithm == "ppo":
            section["ppo"] = {"epochs": 2, "minibatches": 4}
        if self.fit.one_trunk:
            section["layout"] = "one_trunk"
        if (self.facts.data.longer_wins or 0) >= 0.65:
            section["shaping"] = {"length_penalty": 0.1}
        return self.stage("ppo", **section)

    def part(self) -> dict[str, Any]:
        """What gives the score."""
        if "verifiable" not in self.facts.rewards:
            return {"name": "reward_model", "model": "stage"}
        named = self.facts.verifier or self.facts.goal
        if ":" in named:
            return {"name": "checked", "python": named}
        return {"name": "checked", **CHECKS.get(named, {"python": MISSING})}

    def rounds(self) -> dict[str, Any] | None:
        """Who judges fresh pairs, where the method has some."""
        facts = self.facts
        labeller = {"judge": "labeller", "labeller": facts.labeller or MISSING}
        if self.name in ("iterative_dpo", "hybrid"):
            judged: dict[str, Any] = labeller
            if not facts.fresh:
                judged = {"judge": "feedback" if self.asks_a_model else "reward"}
            if "verifiable" in facts.rewards and not facts.fresh:
                judged["rewards"] = [self.part()]
            return {"count": 3 if self.name == "iterative_dpo" else 1, "comparisons": 800, **judged}
        if facts.fresh and self.name in ONLINE and self.learns_a_reward:
            return {"count": 4, "comparisons": 800, **labeller}
        return None

    def judge(self) -> dict[str, Any]:
        """The model that judges, as a recipe names it."""
        named = self.facts.judge or MISSING
        if named.startswith(("http://", "https://")):
            return {"endpoint": {"url": named, "model": MISSING}}
        return {"python" if ".py:" in named else "path": named}

    def best_of(self) -> dict[str, Any]:
        section: dict[str, Any] = {"n": 8, "max_new_tokens": self.longest, "rewards": [self.part()]}
        if self.name == "rejection":
            trained = self.stage("sft", epochs=1, batch=32)
            trained["optim"]["learning_rate"] /= 2
            section |= {"prompts": 512, "rounds": 3, "train": trained}
        return section

    def values(self) -> dict[str, Any]:
        """The whole recipe."""
        name = self.name
        recipe: dict[str, Any] = {"name": f"{self.facts.goal}, {name}"}
        if name != "sft":
            recipe["method"] = WORDS.get(name, name)
        recipe |= {"model": self.model(), "data": self.data()}
        if name == "sft" or self.fine_tunes:
            recipe["sft"] = self.stage("sft", epochs=3 if size_of(self.facts) == "tiny" else 1, batch=32)
        if self.learns_a_reward:
            recipe["reward"] = self.stage("reward", epochs=1, batch=32)
        if name == "cai":
            recipe["constitution"] = {"path": self.facts.constitution or MISSING, "prompts": 1000}
        if self.asks_a_model:
            recipe["feedback"] = {"judge": self.judge(), **({} if name == "iterative_dpo" else {"comparisons": 2000})}
        if name in OFFLINE:
            recipe["prefer"] = self.prefer()
        if name in ONLINE:
            recipe["ppo"] = self.rl()
        if name in ("best_of_n", "rejection"):
            recipe["best_of"] = self.best_of()
        if (rounds := self.rounds()) is not None:
            recipe["rounds"] = rounds
        if name != "sft":
            recipe["evaluate"] = {"prompts": 256}
        return recipe


def recipe_of(advice: Advice) -> dict[str, Any]:
    """The values of a recipe for the advised method."""
    return Draft(advice).values()


def unanswered(advice: Advice) -> list[str]:
    """Settings of the recipe that nobody has given, such as `data.comparisons.path`."""
    if advice.method is None:
        return []

    def below(values: Any, name: str) -> list[str]:
        if isinstance(values, dict):
            return [found for key, value in values.items() for found in below(value, f"{name}.{key}" if name else key)]
        if isinstance(values, list):
            return [found for at, value in enumerate(values) for found in below(value, f"{name}.{at}")]
        return [name] if values == MISSING else []

    return below(recipe_of(advice), "")
