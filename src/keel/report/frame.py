"""One frame of `keel watch`: a run's state laid out on so many columns and lines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from keel.report.alarm_lines import ago, alarm_lines, clean
from keel.report.gauges import Band, Pens, answer_bands, band_of, ladder, share_gauge, token_bands
from keel.report.live import Live, Track
from keel.report.records import KLBands
from keel.report.terminal import Ink
from keel.report.units import duration, percent, plain, signed
from keel.report.values import number, printable, prompt_as_text

ROOMY = 32  # lines from which sections get headings and empty lines between them
WIDE = 100  # columns from which remarks are written out
LABEL = 15  # columns of the names at the left edge
CELL = 38  # columns that one curve needs at least
STATES = {"running": "green", "finished": "bold green", "stopped": "bold yellow", "waiting": "dim"}
CURVES: dict[str, tuple[tuple[str, str, int], ...]] = {  # figure, title, digits; of the same title the first one known
    "ppo": (
        ("score_mean", "score", 2),
        ("reward_mean", "shaped reward", 2),
        ("kl_nats_per_token", "KL per token", 3),
        ("response_tokens_mean", "length, tokens", 1),
        ("entropy_nats", "entropy, nats", 2),
        ("entropy_nats_sampled", "entropy, nats", 2),
        ("distinct_2", "distinct-2", 2),
        ("explained_variance", "value explains", 2),
        ("clip_fraction", "clipped tokens", 3),
        ("kl_coef", "KL weight", 4),
        ("self_bleu", "self-BLEU", 2),
        ("unique_share", "unique answers", 2),
        ("finished_share", "finished", 2),
        ("approx_kl", "step size, nats", 4),
        ("unseen_trigram_share", "unseen trigrams", 2),
        ("score_disagreement", "judges' spread", 2),
        ("ref_perplexity", "ref perplexity", 1),
        ("grad_norm", "gradient norm", 2),
    ),
    "": (
        ("loss", "loss", 3),
        ("accuracy", "accuracy", 2),
        ("reward_margin", "reward margin", 2),
        ("grad_norm", "gradient norm", 2),
        ("learning_rate", "learning rate", 5),
        ("tokens_per_second", "tokens a second", 0),
    ),
}
JUDGES = (("win_rate", "judged win rate", 2),)
HELD_OUT = (("perplexity", "perplexity", 2), ("loss", "held-out loss", 3), ("accuracy", "held-out acc.", 2))


@dataclass(frozen=True, kw_only=True)
class View:
    """A run as a frame shows it, and where it is shown."""

    live: Live
    name: str
    state: str
    """waiting, running, finished or stopped."""
    bands: KLBands = field(default_factory=KLBands)
    rounds: int | None = None
    label_budget: float = math.nan
    now: float = math.nan
    """Unix seconds; nan for a run that has ended."""
    notes: tuple[str, ...] = ()
    """What stands in the last lines."""


def frame(view: View, console: Console, width: int, height: int | None) -> list[Text]:
    """Lines of at most `width` columns; no more than `height` of them, all there is to say where that is None."""
    page = _Page(view, console, Pens.of(console.encoding), width)
    roomy = height is None or height >= ROOMY
    head = [*page.header(), *page.ladders(), *page.evidence()]
    foot = page.footer()
    if height is None:
        alarms, curves, samples = page.alarms(None), page.curves(None), page.samples(None)
    else:
        free = max(0, height - len(head) - len(foot) - (6 if roomy else 0))
        curves = page.curves(max(min(4, free), free // 3))
        rest = free - len(curves)
        alarms = page.alarms(max(min(2, rest), 2 * rest // 3))
        samples = page.samples(rest - len(alarms))
        if spare := free - len(curves) - len(alarms) - len(samples):
            alarms = page.alarms(len(alarms) + spare)
            curves = page.curves(free - len(alarms) - len(samples))
    lines = list(head)
    for title, body in (("Alarms", alarms), ("Curves", curves), (page.samples_title(), samples)):
        if body and roomy:
            lines += [Text(""), Text(title, style="bold")]
        lines += body
    if height is not None:
        lines = lines[: max(0, height - len(foot))]
        lines += [Text("")] * (height - len(foot) - len(lines))
        lines = (lines + foot)[:height]
    else:
        lines += [Text(""), *foot]
    for line in lines:
        line.truncate(width, overflow=cut(console))
    return lines


class _Page:
    """Makes the sections of one frame."""

    def __init__(self, view: View, console: Console, pens: Pens, width: int) -> None:
        self.view, self.live, self.console, self.pens, self.width = view, view.live, console, pens, width
        self.steps = self.live.steps.get(self.live.focus, Track())
        self.wide = width >= WIDE
        self.gauge = max(16, (width - LABEL - 13) // 4)
        self.evaluations = self.live.evaluations.get(self.live.focus, Track())

    def clean(self, text: str) -> str:
        return clean(text, self.console.encoding)

    def header(self) -> list[Text]:
        view, live = self.view, self.live
        state = Text(view.state, style=STATES.get(view.state, ""))
        title = Text(f"keel {self.pens.dot} {self.clean(view.name)}", style="bold")
        title.truncate(max(8, self.width - cell_len(view.state) - 2), overflow=cut(self.console))
        gap = self.width - title.cell_len - state.cell_len
        first = Text.assemble(title, " " * max(1, gap), state)
        work = live.current
        parts = []
        if work is not None:
            stage = work.title
            if self.view.rounds and work.label.startswith("ppo "):
                stage += f" of {self.view.rounds}"
            parts.append(self.clean(stage))
            if work.done or math.isfinite(work.of):
                of = f" of {work.of:.0f}" if math.isfinite(work.of) else ""
                parts.append(f"{work.unit} {work.done:.0f}{of}")
        elif live.stages:
            parts.append("all stages done" if view.state == "finished" else "between two stages")
        elapsed = live.worked + (max(0.0, view.now - live.latest) if math.isfinite(view.now) else 0.0)
        if live.stages:
            parts.append(f"{duration(elapsed)} so far" if view.state == "running" else duration(elapsed))
        if work is not None and view.state == "running" and math.isfinite(work.seconds_left):
            parts.append(f"{duration(work.seconds_left)} left{' in this stage' if self.wide else ''}")
        return [first, Text(f" {self.pens.dot} ".join(parts))]

    def ladders(self) -> list[Text]:
        if self.live.focus != "ppo":
            return []
        return [
            self._ladder("KL per token", "kl_nats_per_token", token_bands(self.view.bands), 3),
            self._ladder("KL per answer", "kl_nats_per_sequence", answer_bands(self.view.bands), 2),
        ]

    def _ladder(self, title: str, figure: str, bands: Sequence[Band], digits: int) -> Text:
        value = self.steps.last(figure)
        value = self.evaluations.last(figure) if math.isnan(value) else value
        band = band_of(value, bands)
        shown = f"{plain(value, digits)} nats" if math.isfinite(value) else "not known"
        word = band.name if band is not None else ""
        room = self.width - LABEL - 13 - 11
        return Text.assemble(
            (title.ljust(LABEL), "bold"),
            (shown.rjust(11) + "  ", ""),
            ladder(value, bands, max(20, room), self.pens),
            (f"  {word}", band.style if band is not None else ""),
        )

    def evidence(self) -> list[Text]:
        """The proxy reward, and beside it what judges say who are not the reward model."""
        if self.live.focus != "ppo":
            return []
        return [self._proxy(), self._judges()]

    def _proxy(self) -> Text:
        track, figure, where = self.evaluations, "score", "held-out"
        if math.isnan(track.last("score")):
            track, figure, where = self.steps, "score_mean", "training"
        first, last = track.first(figure), track.last(figure)
        line = Text.assemble(("reward".ljust(LABEL), "bold"))
        if math.isnan(last):
            return line.append("not measured yet", style="dim")
        line.append((plain(last) + "  ").rjust(13))
        line.append_text(self._curve(track, figure, self.gauge))
        rise = f", {signed(last - first)} since the start" if len(track.known(figure)) > 1 else ""
        return line.append(f"  {where}{rise}", style="dim")

    def _judges(self) -> Text:
        checks = self.live.checks
        line = Text.assemble(("judges".ljust(LABEL), "bold"))
        share = checks.last("win_rate")
        if math.isfinite(share):
            low, high = checks.last("win_rate_low"), checks.last("win_rate_high")
            count, proxy = checks.last("verdicts"), checks.last("proxy_win_rate")
            when = f" verdicts at update {checks.at[-1]:.0f}" if self.wide else ""
            of = f" of {count:.0f}{when}" if math.isfinite(count) else ""
            says = "the reward model says" if self.wide else "reward"
            of += f", {says} {100 * proxy:.0f} %" if math.isfinite(proxy) else ""
        else:
            final = self.live.final.get("evaluate", {})
            name = "true_win_rate" if math.isfinite(number(final.get("true_win_rate"))) else "reward_win_rate"
            share, low, high = (number(final.get(name + end)) for end in ("", "_low", "_high"))
            of = f" of {number(final.get('n')):.0f}, by {final.get('win_rate_by') or 'reward model'}"
            if not math.isfinite(share):
                return line.append("nobody has compared it with SFT yet", style="dim")
        line.append((percent(share, 0) + "  ").rjust(13))
        line.append_text(share_gauge(share, low, high, self.gauge, self.pens))
        interval = f"{100 * low:.0f} to {100 * high:.0f} %" if math.isfinite(low) and math.isfinite(high) else ""
        return line.append(f"  {interval}{printable(of)}", style="dim")

    def _curve(self, track: Track, figure: str, width: int) -> Text:
        drawn = Ink(blocks=self.pens.blocks, width=max(4, width)).curve(track.get(figure))
        return Text(drawn.ljust(max(4, width)), style="cyan")

    def curves(self, most: int | None) -> list[Text]:
        """As many rows of curves as there are lines, in as many columns as there is room for."""
        chosen: list[tuple[Track, str, str, int]] = []
        known = CURVES.get(self.live.focus, CURVES[""])
        held_out = HELD_OUT if self.live.focus != "ppo" else ()
        titles: set[str] = set()
        judges = JUDGES if self.live.focus == "ppo" else ()
        for track, curves in ((self.live.checks, judges), (self.steps, known), (self.evaluations, held_out)):
            for figure, title, digits in curves:
                if title not in titles and len(track.known(figure)):
                    titles.add(title)
                    chosen.append((track, figure, title, digits))
        columns = max(1, min(3, (self.width + 2) // (CELL + 2)))
        if most is not None:
            chosen = chosen[: most * columns]
        each = (self.width - 2 * (columns - 1)) // columns
        lines = []
        for start in range(0, len(chosen), columns):
            line = Text()
            for at, curve in enumerate(chosen[start : start + columns]):
                line.append("  " if at else "")
                line.append_text(self._cell(*curve, each))
            lines.append(line)
        return lines

    def _cell(self, track: Track, figure: str, title: str, digits: int, width: int) -> Text:
        first, last = plain(track.first(figure), digits), plain(track.last(figure), digits)
        numbers = f" {first} {self.pens.to} "
        room = width - LABEL - 1 - len(numbers) - len(last)
        cell = Text.assemble((title[:LABEL].ljust(LABEL + 1), ""))
        cell.append_text(self._curve(track, figure, room))
        cell.append(numbers, style="dim")
        cell.append(last, style="bold")
        cell.append(" " * (width - cell.cell_len))
        return cell

    def alarms(self, most: int | None) -> list[Text]:
        """Cards as long as there is room for, the gravest first."""
        cards = self.live.cards.sorted()
        if not cards:
            return [Text("no alarms", style="dim green")] if self.live.stages and (most is None or most) else []
        return alarm_lines(cards, most, self.width, self.console, self.view.now)

    def samples_title(self) -> str:
        at = self.live.samples_step
        return f"Newest samples, update {at:.0f}" if math.isfinite(at) and at else "Samples"

    def samples(self, most: int | None) -> list[Text]:
        """Prompt and answer, a line each, or more where there is no end of lines."""
        lines: list[Text] = []
        for sample in self.live.samples[:3] if most is None else self.live.samples:
            score = number(sample.get("score"))
            answer = self.clean(str(sample.get("response") or "")) or "(empty)"
            marked = (signed(score) if math.isfinite(score) else "").rjust(LABEL - 7)
            question = self.clean(prompt_as_text(sample.get("prompt")))
            pair = [
                Text.assemble((f"{'asked':>{LABEL - 7}}  ", "dim"), (question, "dim")),
                Text.assemble((f"{marked}  ", "cyan"), answer),
            ]
            if most is not None and len(lines) + len(pair) > most:
                break
            lines += pair
        return lines

    def footer(self) -> list[Text]:
        parts = []
        live, view = self.live, self.view
        spent = live.labels_spent
        if math.isfinite(spent) or math.isfinite(view.label_budget):
            of = f" of {view.label_budget:.0f}" if math.isfinite(view.label_budget) else ""
            parts.append(f"{0 if math.isnan(spent) else spent:.0f}{of} labels spent")
        if live.asked_at > max(live.checks.at, default=-1.0):
            parts.append(f"judges asked at update {live.asked_at:.0f}")
        if view.state == "running" and math.isfinite(view.now):
            parts.append(f"last event {ago(view.now - live.latest)}")
        notes = [self.clean(note) for note in view.notes]
        between = f" {self.pens.dot} "
        joined = between.join([*parts, *notes])
        lines = [joined] if cell_len(joined) <= self.width else [between.join(parts), *notes]
        return [Text(line, style="dim") for line in lines if line]


def cut(console: Console) -> Literal["ellipsis", "crop"]:
    """How a line that is too long ends on this terminal."""
    return "ellipsis" if console.encoding.lower().startswith("utf") else "crop"
