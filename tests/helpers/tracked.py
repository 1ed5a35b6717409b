"""Sends the events of a made-up guarded run to one tracker, in a process of its own: products keep threads and state.

    python tracked.py RUN TRACKER FIRST LAST [TORN]

The events of updates FIRST to LAST are logged; with TORN the process then dies without closing anything.
"""

import os
import sys
from pathlib import Path

from keel.core.events import EventLog, read_events
from keel.core.progress import Silent
from keel.stages.recipe import Recipe
from keel.stages.trackers.follow import tracking

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.guarded_runs import events


class Said(Silent):
    def say(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")


def main(folder: Path, tracker: str, first: int, last: int, *, torn: bool, at: float = 1_760_000_000.0) -> None:
    recipe = Recipe.model_validate({"name": "help desk", "model": {"path": "model"}, "trackers": [tracker]})
    log = EventLog(folder / "events.jsonl")
    with tracking(recipe, folder, log, Said()):
        if first > 1:
            log.append("stage_started", stage="ppo", config={})
            log.rewind("ppo", first - 1)
            log.append("resumed", stage="ppo", step=first - 1)
        for event, wait_s, fields in events(last):
            at += wait_s
            if first == 1 or (fields.get("step") or 0) >= first:
                log.append(event, stage="ppo", **readable(fields))
        if torn:
            import time

            time.sleep(1)
            os._exit(9)
        log.append(
            "stage_finished", stage="ppo", seconds=9.0, reused=False, metrics={"score_after": 3.0, "best": {"n": 4}}
        )
    assert read_events(log.path)


def readable(fields: dict) -> dict:
    """A log holds no lone surrogates: the tokenizer's decoder makes none."""
    samples = [{**s, "response": s["response"].replace("\ud800", "")} for s in fields.get("samples", ())]
    return {**fields, **({"samples": samples} if samples else {})}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), torn=len(sys.argv) > 5)
