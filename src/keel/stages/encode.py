"""Records to token ids, with a count of everything that did not fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from keel.batch.collate import EncodedPair, EncodedResponse
from keel.core.errors import DataError
from keel.core.seed import derive
from keel.data.chat import Tokenizer, encode_comparison, encode_demonstration, encode_prompt
from keel.data.lengths import LengthTally, TooLong, truncate_prompt
from keel.data.prompt_records import PromptRecord
from keel.data.records import Comparison, Demonstration, Prompt, prompt_key, prompt_text
from keel.stages.sections.data import DataSection
from keel.train.rollout import EncodedPrompt


@dataclass
class Fitting:
    """The context that records must fit into, and what happened to those that did not."""

    max_tokens: int
    policy: TooLong
    tally: LengthTally = field(default_factory=LengthTally)
    first: str = field(default="", init=False)

    def fit(self, tokenizer: Tokenizer, prompt: list[int], longest_response: int, source: str) -> list[int] | None:
        """The prompt, cut so that the longest response fits whole; None when the record is dropped."""
        fitted = truncate_prompt(
            prompt,
            range(longest_response),
            self.max_tokens,
            self.policy,
            bos_id=tokenizer.bos_token_id,
            source=source,
        )
        self.tally.add(fitted)
        if fitted.cut_tokens or fitted.prompt_ids is None:
            self.first = self.first or source
        return fitted.prompt_ids

    def report(self) -> dict[str, int | str]:
        return {
            "shortened_prompts": self.tally.cut,
            "dropped_too_long": self.tally.dropped,
            "first_too_long": self.first,
        }


def fitting(data: DataSection) -> Fitting:
    return Fitting(max_tokens=data.max_tokens, policy=data.too_long)


Demo = tuple[list[int], EncodedResponse]


def encode_demonstrations(
    records: Sequence[Demonstration], tokenizer: Tokenizer, fit: Fitting, *, every_turn: bool = True
) -> list[Demo]:
    """Prompt ids and response of each demonstration that fits; with `every_turn` also the earlier turns of a chat."""
    out: list[Demo] = []
    for record in records:
        prompt, response, mask = encode_demonstration(tokenizer, record, every_turn=every_turn)
        kept = fit.fit(tokenizer, prompt, len(response), record.source)
        if kept is not None:
            out.append((kept, EncodedResponse(tokens=response, mask=mask)))
    return nonempty(out, "demonstration", fit)


def encode_comparisons(records: Sequence[Comparison], tokenizer: Tokenizer, fit: Fitting) -> list[EncodedPair | None]:
    """One pair a comparison, None where it did not fit, so that positions still match the records."""
    out: list[EncodedPair | None] = []
    for record in records:
        prompt, a, b = encode_comparison(tokenizer, record)
        kept = fit.fit(tokenizer, prompt, max(len(a), len(b)), record.source)
        out.append(
            None
            if kept is None
            else EncodedPair(
                prompt=kept, a=a, b=b, preference=record.preference, weight=record.weight, margin=record.margin
            )
        )
    nonempty([pair for pair in out if pair is not None], "comparison", fit)
    return out


def encode_prompts(
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
    fit: Fitting,
    max_new_tokens: int,
    section: str,
    records: Mapping[str, PromptRecord] | None = None,
) -> list[EncodedPrompt]:
    """Each distinct prompt that leaves room for a whole response; `section` of the recipe says how long that is.

    `records` holds by `prompt_key` what stands beside a prompt.
    """
    out: dict[str, EncodedPrompt] = {}
    beside = records or {}
    for prompt in prompts:
        key = prompt_key(prompt)
        if key in out:
            continue
        source = f"the prompt {prompt_text(prompt)[:60]!r} with {section}.max_new_tokens={max_new_tokens}"
        kept = fit.fit(tokenizer, encode_prompt(tokenizer, prompt), max_new_tokens, source)
        if kept:
            out[key] = EncodedPrompt(
                prompt=prompt, tokens=tuple(kept), key=derive(0, "prompt", key), record=beside.get(key, {})
            )
    return nonempty(list(out.values()), "prompt", fit)


def nonempty(records: list, what: str, fit: Fitting) -> list:
    if not records:
        raise DataError(
            f"No {what} is left: {fit.tally.dropped} were over data.max_tokens={fit.max_tokens} (the first: "
            f"{fit.first or 'none'}). Raise data.max_tokens, or check the data with `keel data show`."
        )
    return records
