"""The demo's people and its truth, in the shapes that a recipe asks for."""

from collections.abc import Sequence

from keel.core.errors import DataError
from keel.core.seed import derive
from keel.data.records import Comparison, Prompt, prompt_text
from keel.demo.raters import collect, panel
from keel.demo.world import Answer, Question, World, utility
from keel.stages.labels import Pair


class HelpDesk:
    """A world, the panel that judges its answers, and what is truly better.

    `label` is what the reward model learns from; `true_preference` measures the finished policy and is never trained
    on.
    """

    def __init__(
        self,
        seed: int,
        *,
        length_bias: float = 0.0,
        flattery_bias: float = 0.0,
        room: int = 0,
        votes_per_pair: int = 3,
    ) -> None:
        """Another `room` holds other people of the same overall quality."""
        self.world = World(seed)
        self.seed = derive(seed, "room", room) if room else seed
        self.raters = panel(seed=self.seed, length_bias=length_bias, flattery_bias=flattery_bias)
        self.votes_per_pair = votes_per_pair
        self.questions = {q.text: q for q in (*self.world.train_questions, *self.world.eval_questions)}

    def question(self, prompt: Prompt) -> Question:
        text = prompt_text(prompt)
        if text not in self.questions:
            raise DataError(f"The demo's raters know no question {text!r}. Ask one of World.train_questions.")
        return self.questions[text]

    def label(self, pairs: Sequence[Pair]) -> list[Comparison]:
        """The panel's votes on each pair, and the majority."""
        return collect(
            self.world,
            [self.question(pair.prompt) for pair in pairs],
            [Answer(pair.a, pair.a_finished) for pair in pairs],
            [Answer(pair.b, pair.b_finished) for pair in pairs],
            self.raters,
            votes_per_pair=self.votes_per_pair,
            seed=self.seed,
        )

    def true_preference(
        self, prompts: Sequence[str], responses: Sequence[str], finished: Sequence[bool]
    ) -> dict[str, list[float]]:
        """True utility of each response, and what it is made of."""
        read = [
            self.world.features(self.question(prompt), response, done)
            for prompt, response, done in zip(prompts, responses, finished, strict=True)
        ]
        return {
            "utility": [utility(f) for f in read],
            "right_facts": [float(f.right > 0 and f.wrong == 0) for f in read],
            "wrong_facts": [float(f.wrong > 0) for f in read],
            "polite": [float(f.polite > 0) for f in read],
            "rude": [float(f.rude > 0) for f in read],
            "garbled": [float(f.garbled > 0) for f in read],
        }
