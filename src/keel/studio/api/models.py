"""Types that several endpoints share."""

import re
from typing import Annotated, Literal, TypeAlias

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from keel.studio.auth import LONGEST_PASSWORD, SHORTEST_PASSWORD

DAY_S = 86_400.0
BIGGEST_ID = 2**53 - 1
"""Numbers above this are not exact in JavaScript."""
PROJECT_NAME = r"^[a-z0-9][a-z0-9_-]{0,59}$"


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("a text with a NUL character cannot be stored; remove it")
    return text


class Model(BaseModel):
    """What is sent or answered. A request with a field that is unknown is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


Id = Annotated[int, Field(ge=1, le=BIGGEST_ID)]
PathId = Annotated[int, Path(ge=1, le=BIGGEST_ID)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), AfterValidator(_storable)]
Word = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,100}$", description="Pseudonym", examples=["amber-wren"])]
Note = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(_storable)]
Text = Annotated[str, StringConstraints(max_length=200_000), AfterValidator(_storable)]
ProjectName = Annotated[str, StringConstraints(pattern=PROJECT_NAME), Field(examples=["helpdesk"])]
ProjectPath = Annotated[str, Path(pattern=PROJECT_NAME, description="Name of the project", examples=["helpdesk"])]
UserName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100, strip_whitespace=True),
    AfterValidator(_storable),
    Field(description="Letter case does not count", examples=["Ann"]),
]
Password = Annotated[
    str,
    StringConstraints(min_length=SHORTEST_PASSWORD, max_length=LONGEST_PASSWORD),
    Field(json_schema_extra={"format": "password"}, examples=["a long and lasting phrase"]),
]
Skill = Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,40}$")]
ClientKey = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]{8,64}$"),
    Field(
        description="Made by the client, one for each judgment; sent twice it counts once", examples=["k3Jd82hs0Ql4"]
    ),
]
Role: TypeAlias = Literal["lead", "senior", "rater", "viewer"]
Side: TypeAlias = Literal["left", "right", "tie", "both_bad", "skip"]
OwnChoice: TypeAlias = Literal["a", "b", "tie", "both_bad", "skip"]


class Problem(Model):
    """What was refused."""

    message: str
    field: str | None = None
    hint: str | None = None


class Refusal(Model):
    """Every answer with a status of 400 or above."""

    error: Problem


class Done(Model):
    """It is done, and there is nothing to tell."""

    done: Literal[True] = True


def is_project_name(text: str) -> bool:
    return re.fullmatch(PROJECT_NAME, text) is not None


class RaterProgressShown(Model):
    done: int
    left: int
    """At most so many wait for you."""
    today: int
    """Since midnight UTC."""


def midnight(now: float) -> float:
    return now - now % DAY_S
