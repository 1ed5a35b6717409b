"""Records that are longer than a model reads: what is done is said and counted, and no response is ever cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from keel.core.errors import DataError

TooLong = Literal["left", "error", "drop"]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that leaves room for its response; None where the record has to be dropped."""

    prompt_ids: list[int] | None
    cut_tokens: int = 0  # tokens taken from the prompt
    reason: str = ""  # why it was dropped


@dataclass(slots=True)
class LengthTally:
    """What happened to the records of a set."""

    whole: int = 0
    cut: int = 0
    cut_tokens: int = 0
    dropped: int = 0

    def add(self, fitted: Fitted) -> None:
        """Count one record."""
        if fitted.prompt_ids is None:
            self.dropped += 1
        elif fitted.cut_tokens:
            self.cut += 1
            self.cut_tokens += fitted.cut_tokens
        else:
            self.whole += 1

    def __str__(self) -> str:
        return (
            f"{self.whole} records whole, {self.cut} prompts cut on the left (by {self.cut_tokens} tokens), "
            f"{self.dropped} records dropped"
        )


def truncate_prompt(
    prompt_ids: Sequence[int],
    response_ids: Sequence[int],
    max_tokens: int,
    policy: TooLong,
    *,
    bos_id: int | None = None,
    source: str = "",
) -> Fitted:
    """The prompt so that it and the response fit into `max_tokens`; for two responses pass the longer one.

    `left` takes tokens from the start of the prompt, never the leading `bos_id`, and leaves at least one other token;
    where that is not enough, because the response alone is too long, the record is dropped. `drop` drops whatever does
    not fit, `error` stops at it.
    """
    length = len(prompt_ids) + len(response_ids)
    if length <= max_tokens:
        return Fitted(list(prompt_ids))
    needs = f"{len(prompt_ids)} prompt + {len(response_ids)} response tokens, {max_tokens} allowed"
    if policy == "error":
        where = f"{source}: " if source else ""
        raise DataError(
            f"{where}too long: {needs}. Shorten it, raise max_tokens, or say too_long: left (cut the start of the "
            "prompt) or drop."
        )
    keeps_bos = bos_id is not None and list(prompt_ids[:1]) == [bos_id]
    head = list(prompt_ids[:1]) if keeps_bos else []
    room = max_tokens - len(response_ids) - len(head)
    if policy == "drop" or room < 1:
        return Fitted(None, reason=f"too long: {needs}")
    kept = head + list(prompt_ids[len(prompt_ids) - room :])
    return Fitted(kept, cut_tokens=len(prompt_ids) - len(kept))
