"""Dynamic sampling (DAPO, Yu et al. 2025, arXiv 2503.14476): prompts that teach nothing give way to others.

For methods that compare the samples of a prompt: where all are paid alike there is nothing to compare.
"""

from collections.abc import Iterator
from dataclasses import replace

from keel.batch.types import Rollout, joined
from keel.core.seed import derive
from keel.functional.advantages import all_alike
from keel.train.loop import shuffled
from keel.train.rollout import EncodedPrompt, RolloutSource


def compared_batches(source: RolloutSource, start: int, stop: int) -> Iterator[Rollout]:
    """As `source.batches`, with prompts whose samples are all paid alike changed for others, as often as
    `resample_tries` allows.

    The others and their random numbers depend on (seed, update) and on what was paid, so a resumed run samples the
    same. `source.last` tells of the prompts as they came, not of those picked because they teach.
    """
    for update in range(start, stop):
        for rollout in source.batches(update, update + 1):
            yield with_signal(source, rollout, update)


def with_signal(source: RolloutSource, rollout: Rollout, update: int) -> Rollout:
    """`rollout` with other prompts where its own teach nothing, as many as it had; `source.last` learns the figures."""
    told, tries = source.last, source.config.resample_tries
    if told is None:
        raise RuntimeError("there is no rollout to change")
    silent = all_alike(rollout.scores, rollout.fanout)
    kept, without, extra = [rollout.rows(~silent)], int(silent.sum()), 0
    left, others = without, other_prompts(source, update) if tries else []
    for attempt in range(tries):
        asked, others = others[:left], others[left:]
        if not asked:
            break
        more = source.rollout(asked, derive(source.config.seed, "rollout", update, "again", attempt))
        alike = all_alike(more.rollout.scores, more.rollout.fanout)
        kept.append(more.rollout.rows(~alike))
        without, extra, left = without + int(alike.sum()), extra + len(asked), left - len(kept[-1])
        told = replace(
            told,
            seconds_rollout=told.seconds_rollout + more.seconds_rollout,
            seconds_score=told.seconds_score + more.seconds_score,
        )
    counts = {"prompts_without_signal": without, "extra_prompts": extra, "prompts_left_without_signal": left}
    source.last = replace(told, choice={name: float(count) for name, count in counts.items()})
    return joined([*kept, rollout.rows(silent.nonzero()[:left, 0])]) if extra else rollout


def other_prompts(source: RolloutSource, update: int) -> list[EncodedPrompt]:
    """The prompts that an update does not begin with, in an order of its own."""
    order = shuffled(len(source.prompts), 1, derive(source.config.seed, "other prompts", update))[0]
    taken = {prompt.key for prompt in source.prompts_of(update)}
    return [prompt for i in order.tolist() if (prompt := source.prompts[i]).key not in taken]
