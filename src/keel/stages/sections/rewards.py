"""Settings of what RL maximises. No torch here: the command line reads it."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from keel.core.config import Config
from keel.verify.settings import CodeConfig, JsonConfig, MathsConfig, TagsConfig, TextConfig

TAKEN = ("mean", "std", "p05", "p95", "abs_max", "disagreement")
"""`score_mean`, `score_std` and so on are figures of the sum, and `score_NAME_std` is one of a part."""


class RemoteConfig(Config):
    """A scorer behind an address, asked over HTTP."""

    url: str
    """Where scores are asked for, whole: http://localhost:5000/get_reward, http://localhost:8000/score."""
    protocol: Literal["keel", "openrlhf", "vllm_score", "vllm_pooling"] = "keel"
    """What is sent and expected. keel sends prompts, responses and records, and expects scores. openrlhf speaks as its
    remote reward models do, vllm_score and vllm_pooling as a reward model served by vLLM does."""
    model: str | None = None
    """The model's name there, for vllm_score and vllm_pooling."""
    key_env: str | None = None
    """Environment variable that holds the API key. The key itself is never written anywhere; null sends none."""
    batch: int = Field(64, ge=1)
    """Responses in one request."""
    concurrency: int = Field(4, ge=1)
    """Requests under way at once."""
    timeout_seconds: float = Field(60.0, gt=0)
    """Longest wait for one whole answer."""
    retries: int = Field(5, ge=0)
    """Further tries after one that failed by accident; the wait doubles from half a second, or is what the server asks
    for."""
    mean: float = 0.0
    """Mean of its scores; with std it brings them to the scale of the other parts where shaping.normalise is model."""
    std: float = Field(1.0, gt=0)
    """Spread of its scores."""

    @model_validator(mode="after")
    def _web_address(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url={self.url!r} is no web address. Write it like http://localhost:5000/get_reward")
        try:
            _ = parts.port
        except ValueError as error:
            raise ValueError(f"url={self.url!r}: {error}") from error
        if parts.username or parts.password:
            raise ValueError("url holds a user name or password. Put the key into an environment variable: key_env")
        if self.protocol.startswith("vllm") and self.model is None:
            raise ValueError(f"protocol {self.protocol} needs model, the name under which vLLM serves it")
        return self


SOURCES = ("model", "models", "python", "maths", "code", "text", "tags", "json_object", "remote")
"""What a part may be; it is exactly one of them."""


class RewardPart(Config):
    """One term of the score: a reward model, an ensemble, a function, a verifier or a remote scorer."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")
    """Under which it is logged: its mean as score_NAME."""
    weight: float = 1.0
    """Factor in the sum."""
    model: str | None = None
    """Folder of a reward model, or `stage` for the one this recipe trains."""
    models: tuple[str, ...] | None = Field(None, min_length=2)
    """Folders of several reward models that make one score together, each normalised first."""
    aggregate: Literal["mean", "min", "mean_minus_std"] = "mean"
    """How the scores of `models` become one: min and mean_minus_std resist over-optimisation (Coste et al. 2023)."""
    std_weight: float = Field(1.0, ge=0)
    """Weight of the members' spread with mean_minus_std."""
    python: str | None = None
    """`file.py:function`; the function takes (prompts, responses), or (prompts, responses, records), and returns one
    number each."""
    timeout_seconds: float = Field(300.0, gt=0)
    """Longest that a python function, or a text part, may take for one rollout before the run stops."""
    maths: MathsConfig | None = None
    """Present (`maths: {}`): is the final answer that of the prompt's record?"""
    code: CodeConfig | None = None
    """Present (`code: {}`): does the response's Python pass the tests of the prompt's record?"""
    text: TextConfig | None = None
    """Present: what the response must and must not hold, its length, its end."""
    tags: TagsConfig | None = None
    """Present (`tags: {}`): is the response written as <think>…</think><answer>…</answer>?"""
    json_object: JsonConfig | None = None
    """Present (`json_object: {}`): is the response a JSON object?"""
    remote: RemoteConfig | None = None
    """Present: a scorer behind an address."""

    @field_validator("name")
    @classmethod
    def _free_name(cls, name: str) -> str:
        if name.endswith(TAKEN) and name.removesuffix(next(t for t in TAKEN if name.endswith(t)))[-1:] in ("", "_"):
            raise ValueError(f"score_{name} would be read as a figure of something else; choose another name")
        return name

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            said = f"found {' and '.join(given)}" if given else "found none"
            raise ValueError(f"give exactly one of {', '.join(SOURCES)} ({said})")
        if self.models is None and (self.aggregate, self.std_weight) != ("mean", 1.0):
            raise ValueError(
                "aggregate and std_weight are settings of `models`; those of the recipe's own reward models stand in "
                "its reward section"
            )
        return self

    @property
    def source(self) -> str:
        """Which of SOURCES it is."""
        return next(name for name in SOURCES if getattr(self, name) is not None)

    @property
    def folders(self) -> tuple[str, ...]:
        """The reward models that it names, without the recipe's own."""
        return self.models or ((self.model,) if self.model not in (None, "stage") else ())

    @property
    def reads_records(self) -> bool:
        """Whether it may look at what stands beside a prompt."""
        return self.source in ("python", "maths", "code", "remote")


def _named_apart(parts: tuple[RewardPart, ...]) -> tuple[RewardPart, ...]:
    refuse_doubles([part.name for part in parts])
    return parts


def refuse_doubles(names: Sequence[str]) -> None:
    """ValueError for a name that stands twice, or for none at all."""
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise ValueError(f"two parts are named {double[0]}: each is logged under its own name. Rename one")
    if not names:
        raise ValueError("nothing is rewarded: name at least one part")


RewardParts: TypeAlias = Annotated[tuple[RewardPart, ...], AfterValidator(_named_apart)]
"""A weighted sum, as a section's `rewards` has it."""
