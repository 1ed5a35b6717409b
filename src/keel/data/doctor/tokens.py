"""How a record reaches a model: its tokens, which of them carry the loss, and what is cut to make it fit.

The ids are those of training: `keel.data.chat` encodes, `keel.data.lengths` makes room.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from keel.data.chat import encode_comparison, encode_demonstration, encode_prompt
from keel.data.lengths import Fitted, TooLong, truncate_prompt
from keel.data.records import Comparison, Demonstration, LabelledText, Ranking, Rating, Record

Part = Literal["cut", "prompt", "context", "learned"]
"""Cut away; before the response; between the turns that are learned; carrying the loss."""
WINDOW = 6  # tokens before one that its text is read behind, since tokens alone lose spaces and halves of characters


@dataclass(frozen=True, slots=True)
class Token:
    """A token and its part in training."""

    id: int
    text: str
    part: Part
    special: bool


@dataclass(frozen=True, slots=True)
class TokenView:
    """One sequence that a model reads."""

    title: str
    tokens: tuple[Token, ...]
    fate: str
    """What becomes of the record: whole, shortened, dropped."""

    def count(self, part: Part) -> int:
        return sum(token.part == part for token in self.tokens)

    def runs(self) -> list[tuple[Part, list[Token]]]:
        """The tokens in stretches of one part."""
        return [(part, list(run)) for part, run in groupby(self.tokens, key=lambda token: token.part)]


def token_views(tokenizer: Any, record: Record, max_tokens: int, policy: TooLong) -> list[TokenView]:
    """The sequences that training makes of a record: one of a demonstration or prompt, one an answer of a comparison.

    `tokenizer` is one of `transformers`. What a comparison's answers carry: DPO learns every token of both, a reward
    model scores each at its last.
    """
    match record:
        case Comparison():
            prompt, a, b = encode_comparison(tokenizer, record)
            fitted = _fit(tokenizer, prompt, max(len(a), len(b)), max_tokens, policy)
            return [
                _view(tokenizer, title, prompt, ids, [True] * len(ids), fitted)
                for title, ids in (("answer a", a), ("answer b", b))
            ]
        case Demonstration() | Rating() | LabelledText():
            demonstration = _demonstration(record)
            prompt, response, mask = encode_demonstration(tokenizer, demonstration)
            fitted = _fit(tokenizer, prompt, len(response), max_tokens, policy)
            return [_view(tokenizer, "response", prompt, response, mask, fitted)]
        case Ranking():
            return [view for pair in record.pairs()[:1] for view in token_views(tokenizer, pair, max_tokens, policy)]
        case _:
            prompt = encode_prompt(tokenizer, record)
            return [_view(tokenizer, "prompt", prompt, [], [], _fit(tokenizer, prompt, 0, max_tokens, policy))]


def _demonstration(record: Demonstration | Rating | LabelledText) -> Demonstration:
    match record:
        case Demonstration():
            return record
        case Rating():
            return Demonstration(record.prompt, record.response, record.source)
        case LabelledText():
            return Demonstration("", record.text, record.source)


def _fit(tokenizer: Any, prompt: Sequence[int], longest: int, max_tokens: int, policy: TooLong) -> Fitted:
    return truncate_prompt(
        prompt, range(longest), max_tokens, "drop" if policy == "error" else policy, bos_id=tokenizer.bos_token_id
    )


def _view(
    tokenizer: Any, title: str, prompt: list[int], response: list[int], mask: Sequence[bool], fitted: Fitted
) -> TokenView:
    parts = _times("prompt", len(prompt))
    if fitted.prompt_ids is None:
        fate = f"dropped: {fitted.reason}"
    elif fitted.cut_tokens:
        kept_head = 1 if prompt[:1] == fitted.prompt_ids[:1] == [tokenizer.bos_token_id] else 0
        parts[kept_head : kept_head + fitted.cut_tokens] = _times("cut", fitted.cut_tokens)
        fate = f"shortened: {fitted.cut_tokens} prompt tokens cut on the left"
    else:
        fate = "whole"
    for learned in mask:
        parts.append("learned" if learned else "context")
    ids = [*prompt, *response]
    texts = token_texts(tokenizer, ids)
    special = set(tokenizer.all_special_ids)
    tokens = tuple(Token(i, text, part, i in special) for i, text, part in zip(ids, texts, parts, strict=True))
    return TokenView(title, tokens, fate)


def _times(part: Part, count: int) -> list[Part]:
    return [part] * count


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """What each token adds to the text; special ones by name, parts of a character as their raw piece."""
    special = set(tokenizer.all_special_ids)
    names = tokenizer.convert_ids_to_tokens(list(ids))
    texts = []
    for at, (token, name) in enumerate(zip(ids, names, strict=True)):
        if token in special:
            texts.append(name)
            continue
        before = [i for i in ids[max(0, at - WINDOW) : at] if i not in special]
        head = tokenizer.decode(before, skip_special_tokens=False) if before else ""
        whole = tokenizer.decode([*before, token], skip_special_tokens=False)
        added = whole[len(head) :] if whole.startswith(head) else ""
        texts.append(name if not added or "\ufffd" in added else added)
    return texts
