"""The ways in which published sets write records, one row each in `DIALECTS`.

A dialect has columns that must be there, the shape of what stands in them where columns alone do not tell it apart,
a reader, and a writer unless it is a vendor's. `keel.data.detect` picks the dialect; nothing here guesses.
"""

from collections.abc import Callable
from dataclasses import replace

from keel.data import answers, fields, hh, pairs, rankings, vendors
from keel.data.dialect import Dialect, Kind
from keel.data.rows import Values

_ANSWERED: tuple[Kind, ...] = ("demonstrations", "prompts")
_RATED: tuple[Kind, ...] = ("ratings", "demonstrations", "prompts")
_COMPARED: tuple[Kind, ...] = ("comparisons", "demonstrations", "ratings", "prompts")
_RANKED: tuple[Kind, ...] = ("rankings", "comparisons", "demonstrations", "prompts")
_MODELS = ("chosen_model", "rejected_model")
_SIDES = ("weight", "margin", "votes", "preference", "model_a", "model_b")
_HISTORY = ("input", "system", "history")
_DIALOGUES = f"both texts open with {hh.HUMAN!r}"
_CHAT = "a chat"


def _chat_in(name: str) -> Callable[[Values], bool]:
    return lambda values: fields.is_chat(values.get(name))


DIALECTS: tuple[Dialect, ...] = (
    # one response
    Dialect(
        "prompt_response",
        ("prompt", "response"),
        answers.read_answered("prompt", "response"),
        _ANSWERED,
        answers.write_prompt_response,
        unread=answers.unread_in_chat("prompt", "response"),
    ),
    Dialect(
        "prompt_completion",
        ("prompt", "completion"),
        answers.read_answered("prompt", "completion"),
        _ANSWERED,
        answers.write_prompt_completion,
        unread=answers.unread_in_chat("prompt", "completion"),
    ),
    Dialect(
        "messages",
        ("messages",),
        answers.read_messages("messages"),
        _ANSWERED,
        answers.write_messages,
        _chat_in("messages"),
        _CHAT,
        chats="only",
        unread=answers.unread_in_chat("messages"),
    ),
    Dialect(
        "sharegpt",
        ("conversations",),
        answers.read_messages("conversations"),
        _ANSWERED,
        answers.write_sharegpt,
        optional=("system",),
        chats="only",
        unread=answers.unread_in_chat("conversations"),
    ),
    Dialect(
        "alpaca", ("instruction", "output"), answers.read_alpaca, _ANSWERED, answers.write_alpaca, optional=_HISTORY
    ),
    Dialect(
        "alpaca", ("instruction", "output", "text"), answers.read_alpaca, _ANSWERED, optional=_HISTORY, passed=("text",)
    ),
    Dialect("text", ("text",), answers.read_text, _ANSWERED, answers.write_text),
    Dialect("prompt_only", ("prompt",), answers.read_prompt, ("prompts",), answers.write_prompt),
    Dialect(
        "unpaired",
        ("prompt", "completion", "label"),
        answers.read_unpaired,
        _RATED,
        answers.write_unpaired,
        unread=answers.unread_in_chat("prompt", "completion"),
    ),
    Dialect("unpaired", ("messages", "desirable"), answers.read_tagged_chat("messages", "desirable"), _RATED),
    Dialect(
        "llamafactory_kto",
        ("conversations", "kto_tag"),
        answers.read_tagged_chat("conversations", "kto_tag"),
        _RATED,
        answers.write_tagged,
        optional=("system",),
        unread=answers.unread_in_chat("conversations"),
    ),
    Dialect("llamafactory_kto", ("messages", "kto_tag"), answers.read_tagged_chat("messages", "kto_tag"), _RATED),
    Dialect("llamafactory_kto", ("messages", "label"), answers.read_tagged_chat("messages", "label"), _RATED),
    Dialect(
        "llamafactory_kto",
        ("instruction", "output", "kto_tag"),
        answers.read_tagged_alpaca,
        _RATED,
        optional=_HISTORY,
    ),
    Dialect(
        "labelled_text",
        ("text", "label"),
        answers.read_labelled,
        ("labelled texts", "comparisons", "prompts"),
        answers.write_labelled,
    ),
    # two responses
    Dialect(
        "preference",
        ("prompt", "chosen", "rejected"),
        pairs.read_preference,
        _COMPARED,
        pairs.write_preference,
        optional=_MODELS,
        unread=answers.unread_in_chat("prompt", "chosen", "rejected"),
    ),
    Dialect("preference", ("messages", "chosen", "rejected"), pairs.read_preference, _COMPARED, optional=_MODELS),
    Dialect(
        "preference_implicit",
        ("chosen", "rejected"),
        pairs.read_implicit,
        _COMPARED,
        pairs.write_implicit,
        pairs.both_alike,
        "two texts or two chats",
        optional=_MODELS,
        unread=answers.unread_in_chat("chosen", "rejected"),
    ),
    Dialect(
        "hh",
        ("chosen", "rejected"),
        pairs.read_hh,
        _COMPARED,
        pairs.write_hh,
        pairs.both_dialogues,
        _DIALOGUES,
        optional=_MODELS,
        chats="as text",
    ),
    Dialect(
        "llamafactory_ranking",
        ("conversations", "chosen", "rejected"),
        pairs.read_sharegpt_ranking,
        _COMPARED,
        pairs.write_llamafactory_ranking,
        optional=("system", *_MODELS),
        unread=answers.unread_in_chat("conversations"),
    ),
    Dialect(
        "llamafactory_ranking",
        ("instruction", "chosen", "rejected"),
        pairs.read_alpaca_ranking,
        _COMPARED,
        optional=(*_HISTORY, *_MODELS),
    ),
    Dialect(
        "openai_preference",
        ("input", "preferred_output", "non_preferred_output"),
        pairs.read_openai,
        _COMPARED,
        pairs.write_openai,
        chats="only",
        strict=True,
    ),
    Dialect(
        "rewardbench",
        ("prompt", "chosen", "chosen_model", "rejected", "rejected_model", "subset"),
        pairs.read_preference,
        _COMPARED,
        pairs.write_rewardbench,
        passed=("subset",),
    ),
    Dialect(
        "comparison",
        ("prompt", "response_a", "response_b", "preference"),
        pairs.read_comparison,
        _COMPARED,
        pairs.write_comparison,
        optional=_SIDES,
    ),
    Dialect(
        "comparison", ("prompt", "response_a", "response_b", "votes"), pairs.read_comparison, _COMPARED, optional=_SIDES
    ),
    Dialect(
        "text_comparison",
        ("text_a", "text_b", "preference"),
        pairs.read_text_comparison,
        ("comparisons",),
        pairs.write_text_comparison,
        optional=_SIDES,
    ),
    # several responses
    Dialect(
        "ranking",
        ("prompt", "responses", "scores"),
        rankings.read_scored,
        _RANKED,
        rankings.write_scored,
        optional=("models",),
    ),
    Dialect("ranking", ("prompt", "responses", "ranks"), rankings.read_ranked, _RANKED, optional=("models",)),
    Dialect(
        "ultrafeedback",
        ("instruction", "completions"),
        rankings.read_ultrafeedback,
        _RANKED,
        rankings.write_ultrafeedback,
        _chat_in("completions"),
        "a list of objects",
        optional=("models",),
        unread=rankings.unread_in_completions,
    ),
    Dialect(
        "ultrafeedback",
        ("instruction", "generations", "ratings"),
        rankings.read_distilabel,
        _RANKED,
        optional=("generation_models",),
    ),
    # vendors
    Dialect(
        "scale",
        ("task_id", "threads"),
        pairs.read_preference,
        _COMPARED,
        optional=("prompt", "chosen", "rejected", *_MODELS),
        passed=("task_id",),
        unfold=vendors.unfold_scale,
    ),
    Dialect("surge", ("fields", "responses"), vendors.read_surge, _COMPARED, unread=vendors.unread_in_surge),
    Dialect(
        "helpsteer",
        ("prompt", "response_1", "response_2", "preference_strength"),
        vendors.read_helpsteer("prompt", ("response_1", "response_2"), "preference_strength"),
        _COMPARED,
    ),
    Dialect(
        "helpsteer",
        ("context", "response1", "response2", "overall_preference"),
        vendors.read_helpsteer("context", ("response1", "response2"), "overall_preference"),
        _COMPARED,
    ),
)


def _joined(variants: tuple[Dialect, ...]) -> Dialect:
    """One dialect for all variants of a format."""
    if len(variants) == 1:
        return variants[0]
    joined = replace(variants[0], variants=variants)
    return replace(
        joined,
        read=lambda row: joined.variant(row.values).read(row),
        unread=lambda values: joined.variant(values).unread(values),
    )


FORMATS: dict[str, Dialect] = {
    name: _joined(tuple(d for d in DIALECTS if d.name == name)) for name in dict.fromkeys(d.name for d in DIALECTS)
}
"""Each format as one dialect, by its name."""

BESIDE = ("answer", "tests")
"""Columns that no dialect reads and rewards do (`keel.data.prompt_records`)."""

COLUMNS = tuple(dict.fromkeys((*(column for d in DIALECTS for column in (*d.columns, *d.optional)), *BESIDE)))
"""Every column name that some dialect or reward reads."""
