"""Answers of a checkpoint in this process."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from keel.core.artifacts import RECORD, load_artifact
from keel.core.errors import ArtifactError
from keel.core.files import tree_sha256
from keel.core.seed import derive
from keel.data.chat import decode_response
from keel.models.generate import InProcessSampler
from keel.models.load import eos_ids
from keel.models.settings import ModelConfig
from keel.stages.encode import Fitting, encode_prompts
from keel.stages.lineage import POLICIES
from keel.stages.policy import MODEL, PolicyFiles, frozen, load_policy, read_tokenizer
from keel.stages.sample import Wanted
from keel.stages.sampling import SampleConfig, SourceConfig
from keel.train.rollout import as_responses, sample_batch

PROMPTS_AT_ONCE = 32
"""Prompts whose answers are lost when the process dies."""


@dataclass
class Checkpoint:
    """A model loaded here. It answers the same whatever else is asked, and in whatever order."""

    identity: str
    provenance: dict[str, Any]
    files: PolicyFiles
    config: SampleConfig
    temperature: float

    @classmethod
    def opened(cls, model: ModelConfig, config: SampleConfig, source: SourceConfig) -> "Checkpoint":
        """The checkpoint that `model.path` means; a run folder means its last policy."""
        path, artifact = policy_at(model.path)
        files = PolicyFiles.of_model(model.model_copy(update={"path": path}))
        content = tree_sha256(Path(path)) if Path(path).is_dir() else None
        provenance = {"path": path, "content": content, "dtype": model.dtype, "artifact": artifact}
        return cls(
            identity=files.identity,
            provenance=provenance,
            files=files,
            config=config,
            temperature=config.temperature_of(source),
        )

    def draw(self, wanted: Sequence[Wanted], keep: Callable[[Wanted, dict[str, Any]], None]) -> None:
        """Answers in batches of prompts."""
        model, tokenizer = frozen(load_policy(self.files)), read_tokenizer(self.files)
        sampler = InProcessSampler(model, eos_ids(model, tokenizer))
        seed = derive(self.config.seed, "sample", self.files.identity)
        by_prompt: dict[Any, list[Wanted]] = {}
        for one in wanted:
            by_prompt.setdefault(one.prompt, []).append(one)
        for prompts in chunks(list(by_prompt), PROMPTS_AT_ONCE):
            fit = Fitting(max_tokens=self.config.max_tokens, policy="left")
            encoded = encode_prompts(prompts, tokenizer, fit, self.config.max_new_tokens, "sample")
            batch, drawn = sample_batch(
                sampler,
                encoded,
                samples=self.config.samples,
                max_new_tokens=self.config.max_new_tokens,
                temperature=self.temperature,
                seed=seed,
            )
            texts = as_responses(
                batch, drawn.finished, [p.text for p in encoded], partial(decode_response, tokenizer)
            ).response_texts
            for number, prompt in enumerate(encoded):
                for one in by_prompt[prompt.prompt]:
                    row = number * self.config.samples + one.index
                    keep(
                        one,
                        {
                            "text": texts[row],
                            "finished": bool(drawn.finished[row]),
                            "response_seed": seed,
                            "tokens": int(drawn.lengths[row]),
                        },
                    )


def policy_at(path: str) -> tuple[str, str | None]:
    """The folder of a model, and the id of the artifact that it belongs to: of a run folder the last policy."""
    folder = Path(path).expanduser()
    summary = folder / "summary.json"
    if summary.is_file():
        stages = json.loads(summary.read_text(encoding="utf-8")).get("stages", {})
        made = next((stages[name]["artifact"] for name in POLICIES if name in stages), None)
        if made is None:
            raise ArtifactError(f"{folder}: this run has made no policy. Give the folder of a model.")
        folder = folder / "artifacts" / made
    if (folder / RECORD).is_file():
        artifact = load_artifact(folder, "policy")
        return str(folder / MODEL), artifact.id
    parent = folder.parent
    if folder.name == MODEL and (parent / RECORD).is_file():
        return str(folder), load_artifact(parent, "policy").id
    return (str(folder) if folder.exists() else path), None


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
