"""What a section says when its policy samples. No torch here: the command line reads it."""

from typing import Protocol


class Sampling(Protocol):
    """How long, how warm, and how many tokens at once."""

    @property
    def max_new_tokens(self) -> int: ...

    @property
    def temperature(self) -> float: ...

    @property
    def micro_batch_tokens(self) -> int: ...
