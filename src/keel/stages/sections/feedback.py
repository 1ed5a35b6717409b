"""Settings of AI feedback. No torch here: the command line reads it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from keel.core.config import Config
from keel.data.formats import DataConfig
from keel.stages.endpoint import EndpointConfig

Reason = Field(None, min_length=10)


class ModelSource(Config):
    """A model that judges or writes: one that is loaded here, one behind an address, or a Python function."""

    path: str | None = None
    """A folder in transformers' format, a run folder (its last policy), or a name on the Hugging Face hub. Device and
    trust_remote_code are those of the recipe's model."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of `path`."""
    quantise: Literal["4bit", "4bit-double"] | None = None
    """Holds `path` in 4 bits, as model.quantise does."""
    chat_template: str | None = None
    """For a `path` whose tokenizer brings none: the template itself, or a file that holds it."""
    micro_batch_tokens: int = Field(4096, ge=1)
    """Tokens per forward pass of `path`."""
    endpoint: EndpointConfig | None = None
    """A model behind an OpenAI-compatible address."""
    python: str | None = None
    """`file.py:function` beside the recipe."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.path, self.endpoint, self.python)) != 1:
            raise ValueError("give exactly one of `path`, `endpoint` and `python`")
        return self

    def refuse_unpriced(self, budget_usd: float | None) -> None:
        """ValueError for a budget that could not be kept."""
        if budget_usd is not None and self.endpoint is not None and not self.endpoint.priced:
            raise ValueError(
                "budget_usd needs endpoint.usd_per_million_input_tokens and endpoint.usd_per_million_output_tokens; 0 "
                "is a price too"
            )


class FeedbackConfig(Config):
    """An AI that compares answers: it labels pairs for the reward model, for prefer, and in rounds."""

    judge: ModelSource
    """Who judges. A function takes a list of `keel.stages.feedback.question.Question` and returns for each the
    probability from 0 to 1 that the first answer is better, or "first", "second", "tie" or "skip"."""
    rubric: str | None = Field(None, min_length=1)
    """What the judge goes by: the text itself, or a file beside the recipe. Known by the hash of what it says. With a
    constitution its principles take the place of this."""
    verdicts: Literal["auto", "tokens", "text"] = "auto"
    """How an endpoint's verdict is read: tokens takes the probabilities of the verdict words, text the verdict that the
    model writes after its reason; auto takes the first where the server tells log-probabilities. A model loaded here
    always gives probabilities."""
    orders: Literal["both", "one"] = "both"
    """both asks each pair twice, sides swapped, and averages the probabilities: no liking for a side is left. one asks
    in an order drawn by the seed, for half the price."""
    ties: bool = False
    """Whether the judge may call a pair a tie. Probabilities near 0.5 say the same."""
    labels: Literal["soft", "hard"] = "soft"
    """soft trains on the probability, hard on 1, 0 or, for exactly 0.5, a tie."""
    temperature: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Divides the log-odds: above 1 for a judge that is too sure. auto fits it to the golden comparisons, and is 1
    without them; the run says which."""
    comparisons: int = Field(0, ge=0)
    """Pairs of answers of the SFT policy that are sampled and judged, for recipes without data.comparisons."""
    pairs: DataConfig | None = None
    """Comparisons whose preferences the judge gives anew; they are then what the recipe trains on."""
    golden: DataConfig | None = None
    """Comparisons judged by people, votes included where there are any, that the judge is held against. null takes
    data.golden."""
    min_kappa: float = Field(0.4, ge=-1, le=1)
    """Cohen's kappa with people below which the judge is refused."""
    override_kappa: str | None = Reason
    """Why a judge below min_kappa is used all the same. The reason stands in the events and in what is trained."""
    allow_self_judging: str | None = Reason
    """Why the judge may be the model that is trained, which prefers its own answers; null refuses that."""
    max_new_tokens: int = Field(512, ge=1)
    """Longest reasoned verdict of an endpoint."""
    budget_usd: float | None = Field(None, gt=0)
    """Most that an endpoint may cost in a run. What could cost more is refused before anything is asked."""
    cache: str | None = None
    """File that keeps every verdict by the hash of what was asked, so that nothing is asked twice; null keeps it in the
    run folder. Several runs may share one."""

    @property
    def gives_comparisons(self) -> bool:
        """Whether reward models and policies learn from its verdicts before any rounds."""
        return self.comparisons > 0 or self.pairs is not None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.judge.refuse_unpriced(self.budget_usd)
        if self.comparisons and self.pairs:
            raise ValueError(
                "comparisons samples pairs from the policy, pairs brings its own. Keep one of them, or put the sampled "
                "ones into the file with `keel sample`"
            )
        return self
