"""Any log read: which tool wrote it is found out from what is in it, never guessed from its name."""

from pathlib import Path
from typing import Any

import numpy as np

from keel.core.errors import ArtifactError
from keel.diagnose import openrlhf, trl
from keel.diagnose.dialect import Dialect
from keel.diagnose.keel_run import keel_run_at, read_keel_run
from keel.diagnose.log import Log, Stage
from keel.diagnose.rows import Rows, read_rows
from keel.monitor.history import History

DIALECTS = (*trl.DIALECTS[:-1], *openrlhf.DIALECTS, trl.DIALECTS[-1])
"""The last is TRL's SFTTrainer, which a log with no more than a loss would fit."""


def read_log(path: Path) -> Log:
    """The log of any run that keel understands: a run folder, a folder with a log in it, or the log itself."""
    if folder := keel_run_at(path):
        return read_keel_run(folder)
    rows = read_rows(path)
    if not rows.train and not rows.evaluation:
        raise ArtifactError(f"{rows.path}, read as {rows.kind}: no step with figures in it. {_looked_for()}")
    for dialect in DIALECTS:
        if dialect.fits(rows):
            return _log(dialect, rows)
    names = ", ".join(sorted(rows.names() | rows.evaluation_names())[:12])
    raise ArtifactError(
        f"{rows.path}, read as {rows.kind}: these figures are no trainer's that keel knows: {names}. {_looked_for()}"
    )


def _looked_for() -> str:
    wanted = []
    for dialect in DIALECTS:
        names = " and ".join(" or ".join(group) for group in dialect.needs)
        wanted.append(f"{dialect.tool} {dialect.trainer.split(' (')[0]} ({names})")
    return f"Looked for: keel (events.jsonl); {'; '.join(wanted)}."


def _log(dialect: Dialect, rows: Rows) -> Log:
    steps, evaluations = dialect.translated(rows.train), dialect.translated(rows.evaluation)
    if dialect.kind == "rl" and evaluations and steps and evaluations[0]["step"] >= steps[0]["step"]:
        evaluations = []  # rules compare with the first one, which must be of the policy before any update
    history = History.of(steps, evaluations)
    rates = history.steps.known("learning_rate")
    coefficients = history.steps.known("kl_coef")
    set_to: dict[str, Any] = {"learning_rate": float(rates.max())} if len(rates) else {}
    if len(coefficients) and "kl_coef" in dialect.derived:  # a ratio of two rounded figures
        set_to["kl_coef"] = float(np.median(coefficients))
    elif len(coefficients):  # an adaptive one has left the value that it was set to
        set_to["kl_coef"] = float(coefficients[0])
        if np.ptp(coefficients) > 1e-6 * abs(coefficients[0]):
            set_to["kl.controller"] = "adaptive"
    if dialect is trl.GROUPS and not any("kl" in row for row in rows.train):
        set_to["beta"] = 0.0  # only then is the KL not logged
    used = dialect.used(rows)
    return Log(
        path=rows.path,
        tool=dialect.tool,
        trainer=dialect.trainer,
        recognised_by=f"{rows.kind}; its figures are named {', '.join(list(used)[:3])}",
        stages=(
            Stage(name=dialect.kind, kind=dialect.kind, settings=dialect.settings, history=history, set_to=set_to),
        ),
        own_names=used,
        left_out=dialect.unused(rows),
        remarks={own: known.remark for own, known in dialect.fields.items() if known.remark and own in used},
    )
