"""The few pieces of HTML the report is built of. All text that is not ours goes through `escape`."""

import html
import re
from collections.abc import Collection, Sequence

from keel.report.plots import Plot
from keel.report.values import printable


def escape(text: str) -> str:
    """Text as HTML, with control characters made visible."""
    return html.escape(printable(text))


def paragraph(text: str) -> str:
    """A paragraph of plain text; a number stays with its unit when the line breaks."""
    kept = re.sub(r"(?<=\d) (?=%|nats|of 100\b)", "\u00a0", text)
    return f"<p>{escape(kept)}</p>"


def section(title: str, introduction: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{paragraph(introduction)}\n{body}"


def definition(term: str, value: str, note: str) -> str:
    """One entry of the row of key figures."""
    return (
        f'<div><dt>{escape(term)}</dt><dd class="value">{escape(value)}</dd><dd class="small">{escape(note)}</dd></div>'
    )


def plot_grid(plots: Sequence[Plot]) -> str:
    figures = "\n".join(
        f"<figure{' class=wide' if plot.wide else ''}>\n<h3>{escape(plot.title)}</h3>\n{plot.svg}\n"
        f"<figcaption>{escape(plot.look_for)}</figcaption>\n</figure>"
        for plot in plots
    )
    return f'<div class="plots">\n{figures}\n</div>' if plots else ""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Collection[int] = ()) -> str:
    """A table of plain text; the columns in `numbers` are set flush right. Empty column names leave out the head."""
    kinds = [' class="number"' if index in numbers else "" for index in range(len(columns))]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, columns, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    heading = f"<thead><tr>{head}</tr></thead>" if any(columns) else ""
    return f'<div class="scroll"><table class="fit">{heading}<tbody>{body}</tbody></table></div>'
