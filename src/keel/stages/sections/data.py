"""Where a run's records come from. No torch here: the command line reads it."""

from typing import Literal

from pydantic import Field

from keel.core.config import Config
from keel.data.formats import DataConfig


class DataSection(Config):
    """Where the records come from. A part that no stage needs may be absent."""

    demonstrations: DataConfig | None = None
    """Prompts with an ideal response, for SFT."""
    comparisons: DataConfig | None = None
    """Two responses and which is better, for the reward model or for prefer."""
    ratings: DataConfig | None = None
    """Responses with thumbs up or down, for prefer with algorithm kto, which otherwise takes comparisons apart."""
    golden: DataConfig | None = None
    """Comparisons judged by seniors, never trained on; the reward model is probed on them."""
    prompts: DataConfig | None = None
    """Prompts for RL and evaluation. Absent: the prompts of the demonstrations, else of the comparisons or ratings."""
    override_agreement: str | None = Field(None, min_length=10)
    """Why comparisons are trained on although their raters agree less than thresholds.agreement_block. The reason
    stands in the events, in what is trained, and in the report; null stops such a run. Only sets with votes of several
    raters are measured."""
    max_tokens: int = Field(512, ge=8)
    """Longest prompt plus response."""
    too_long: Literal["left", "drop", "error"] = "left"
    """A record over max_tokens loses the left of its prompt, is dropped (both counted), or stops the run. A response
    is never cut."""
