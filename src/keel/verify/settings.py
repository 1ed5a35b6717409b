"""Settings of the verifiers. No torch here: the command line reads it."""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from keel.core.config import Config


class MathsConfig(Config):
    """The final answer of a response, compared with the prompt's `answer` as exact numbers."""

    extract: Literal["auto", "mark", "boxed", "last"] = "auto"
    """Where a response says its final answer: mark is what follows the last ####, boxed the last \\boxed{}, last the
    last number; auto takes the first of these that is there. mark and boxed also teach the form."""
    form_share: float = Field(0.0, ge=0, lt=1)
    """What a wrong answer in the wanted form earns of 1; it helps a policy that has yet to learn the form."""


class CodeConfig(Config):
    """A response's Python, run against the prompt's `tests` in a subprocess with limits."""

    credit: Literal["all", "share"] = "all"
    """all pays 1 when every test passes and else 0; share pays the share of tests that pass."""
    seconds: float = Field(5.0, gt=0)
    """Wall time and CPU time that one response may take for all of its tests."""
    memory_mib: int = Field(256, ge=64)
    """Address space of the subprocess; its interpreter takes some 20 MiB of it."""
    output_kib: int = Field(64, ge=1)
    """A program that prints more than this is stopped."""
    workers: int | None = Field(None, ge=1)
    """Subprocesses at once; null takes as many as there are cores."""
    require: Literal["kernel", "any"] = "kernel"
    """kernel runs answers only where the kernel itself denies them network, processes and files (Linux with seccomp);
    any also runs them behind Python's audit hook alone, which stops accidents and no attacker."""


class TextConfig(Config):
    """What a text must and must not hold, how long it is, how it ends."""

    must: tuple[str, ...] = ()
    """Regular expressions of which each is found somewhere in the response."""
    must_not: tuple[str, ...] = ()
    """Regular expressions of which none is found."""
    ignore_case: bool = True
    """Whether capitals count as small letters in both."""
    least_words: int | None = Field(None, ge=0)
    """Fewest words, parted by white space."""
    most_words: int | None = Field(None, ge=0)
    """Most words."""
    ends_properly: bool = False
    """Whether the response has to end with . ! or ?, or with one of these and a closing quote or bracket."""
    credit: Literal["all", "share"] = "all"
    """all pays 1 when every condition holds and else 0; share pays the share of conditions that hold."""

    @field_validator("must", "must_not")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return patterns

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        ranged = self.least_words is not None or self.most_words is not None
        if not (self.must or self.must_not or ranged or self.ends_properly):
            raise ValueError("asks nothing: give must, must_not, least_words, most_words or ends_properly")
        if self.least_words is not None and self.most_words is not None and self.least_words > self.most_words:
            raise ValueError(f"least_words={self.least_words} is more than most_words={self.most_words}")
        return self


class TagsConfig(Config):
    """The form <think>…</think><answer>…</answer>."""

    names: tuple[str, ...] = ("think", "answer")
    """The tags, in the order in which they stand: each opened and closed once, with something inside."""
    alone: bool = True
    """Whether nothing but white space may stand outside them."""

    @field_validator("names")
    @classmethod
    def _are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or len(set(names)) < len(names) or not all(re.fullmatch(r"[A-Za-z][\w-]*", n) for n in names):
            raise ValueError(f"{list(names)} are no names of tags: letters, digits, _ and -, each once")
        return names


JsonType = Literal["string", "number", "integer", "boolean", "array", "object", "null", "any"]


class JsonConfig(Config):
    """A JSON object, alone or in a fenced block."""

    keys: dict[str, JsonType] = Field(default_factory=dict)
    """The keys that it must have, and the type of each value: {name: string, age: integer}."""
    others: bool = True
    """Whether it may have further keys."""
