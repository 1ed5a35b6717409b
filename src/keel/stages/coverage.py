"""What a reward model was trained on, kept beside it for the stages that watch whether RL leaves it."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from keel.batch.collate import EncodedPair
from keel.core.artifacts import Artifact
from keel.stats.coverage import Coverage
from keel.train.resume import load_tensors

COVERAGE = "coverage.safetensors"
TRIGRAMS = "trigrams"


def covered(pairs: Sequence[EncodedPair], earlier: Artifact | None) -> Coverage | None:
    """The trigrams of both responses of every pair, and those that the `earlier` model met before its refresh.

    None when it is not known what that one met: a model made before this was written down.
    """
    own = Coverage.of(response for pair in pairs for response in (pair.a, pair.b))
    if earlier is None:
        return own
    before = read_coverage(earlier.path)
    return None if before is None else before | own


def write_coverage(folder: Path, coverage: Coverage | None) -> None:
    """Into the reward model's artifact."""
    if coverage is not None:
        save_file({TRIGRAMS: torch.from_numpy(coverage.seen)}, folder / COVERAGE)


def read_coverage(folder: Path) -> Coverage | None:
    """Of the artifact in `folder`; None for one without, such as a reward model from elsewhere."""
    path = folder / COVERAGE
    return Coverage(load_tensors(path)[TRIGRAMS].numpy()) if path.is_file() else None


def joined(coverages: Sequence[Coverage | None]) -> Coverage | None:
    """What any of several reward models has met; None when that is unknown of one, or there are none."""
    known = [coverage for coverage in coverages if coverage is not None]
    if not known or len(known) < len(coverages):
        return None
    whole = known[0]
    for coverage in known[1:]:
        whole = whole | coverage
    return whole
