"""MLflow; a store of its own in the run folder unless MLFLOW_TRACKING_URI names a server.

`mlflow` keeps that store in SQLite. `mlflow-skinny`, which has no database, keeps it in files, as long as MLflow allows
it (MLFLOW_ALLOW_FILE_STORE).
"""

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from keel.stages.trackers.base import PROJECT, Note, Place, Sample, flat, table

LONGEST_PARAM = 500  # characters; older servers take no more
LONGEST_TAG = 5000
MOST_PARAMS = 100  # in one request


class MLflow:
    """One run of the experiment MLFLOW_EXPERIMENT_NAME (or keel)."""

    durable = False  # a server may lag behind

    def __init__(self, place: Place) -> None:
        server = os.environ.get("MLFLOW_TRACKING_URI")
        uri = server or own_store(place.directory)
        files = None if server else (place.directory / "mlartifacts").absolute().as_uri()
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri if find_spec("sqlalchemy") else None)
        if place.known is not None:
            self.identity = place.known
            self.client.update_run(self.identity, status="RUNNING")
        else:
            self.identity = self._create(place, files)
        self.where = f"{uri}, run {self.identity}"
        if not uri.startswith(("http", "databricks")):
            self.where += f"; look at it with: mlflow ui --backend-store-uri {uri}"

    def _create(self, place: Place, files: str | None) -> str:
        """A new run with the recipe as its parameters; `files` is where texts go, None where the server says so."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        experiment = self.client.get_experiment_by_name(name)
        where = experiment.experiment_id if experiment else self.client.create_experiment(name, files)
        identity = str(self.client.create_run(where, run_name=place.name).info.run_id)
        params = [Param(name, value[:LONGEST_PARAM]) for name, value in flat(place.config).items()]
        for start in range(0, len(params), MOST_PARAMS):
            self.client.log_batch(identity, params=params[start : start + MOST_PARAMS])
        return identity

    def scalars(self, stage: str, step: int, time: float, figures: Mapping[str, float]) -> None:
        at = int(1000 * time)
        self.client.log_batch(
            self.identity, [Metric(f"{stage}/{name}", value, at, step) for name, value in figures.items()]
        )

    def note(self, stage: str, step: int, time: float, note: Note) -> None:
        said = f"{note.level} at {step}: {note.title}. {note.text}"
        self.client.log_batch(self.identity, tags=[RunTag(f"alarm.{stage}.{note.rule}", said[:LONGEST_TAG])])
        self.client.log_text(
            self.identity, f"{note.title}\n\n{note.text}\n", f"alarms/{stage}-{step:06d}-{note.rule}.txt"
        )

    def samples(self, stage: str, step: int, time: float, samples: Sequence[Sample]) -> None:
        self.client.log_text(self.identity, table(samples), f"samples/{stage}-{step:06d}.md")

    def final(self, stage: str, time: float, figures: Mapping[str, float]) -> None:
        self.scalars(stage, 0, time, {f"final/{name}": value for name, value in figures.items()})

    def close(self, *, succeeded: bool) -> None:
        self.client.set_terminated(self.identity, status="FINISHED" if succeeded else "FAILED")


def own_store(directory: Path) -> str:
    """Address of a store in the run folder."""
    if find_spec("sqlalchemy"):
        return f"sqlite:///{(directory / 'mlflow.db').absolute()}"
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    return (directory / "mlruns").absolute().as_uri()
