"""Bring the generated parts of the pages up to date: tables of settings, and code cut from the source.

    python docs/refresh.py            # rewrite the pages
    python docs/refresh.py --check    # say which are out of date and exit with 1

A part stands between two comments. What it holds follows from the first one:

    <!-- settings: ppo.kl -->                            the settings right below this section of a recipe
    <!-- settings: sft.lora, reward.lora, ppo.lora -->   the same ones below several sections, in one table
    <!-- source: src/keel/train/loop.py fit -->          a function, a class or a `Class.method`
    <!-- end -->
"""

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PART = re.compile(r"<!-- (settings|source): (.+?) -->\n.*?<!-- end -->\n", re.DOTALL)
RECIPE = "recipe"
"""Names the top of a recipe, which has no section above it."""
LONGEST_CHOICE = 6
"""A setting with more choices than this shows the first of them."""


def refreshed(page: str) -> str:
    """The page with every generated part made anew."""

    def part(match: re.Match[str]) -> str:
        kind, what = match.groups()
        body = settings_table(names_in(what)) if kind == "settings" else excerpt(what)
        return f"<!-- {kind}: {what} -->\n\n{body}\n<!-- end -->\n"

    return PART.sub(part, page)


def names_in(what: str) -> list[str]:
    return [name.strip() for name in what.split(",")]


def sections_of(page: str) -> Iterator[list[str]]:
    """The sections that each table of a page covers."""
    for kind, what in PART.findall(page):
        if kind == "settings":
            yield names_in(what)


def settings_table(sections: list[str]) -> str:
    """The settings right below these sections, which must have the same ones."""
    tables = [rows_below(section) for section in sections]
    told = [[(name, kind, text) for name, kind, _, text in table] for table in tables]
    if not tables[0] or any(table != told[0] for table in told):
        raise ValueError(f"{', '.join(sections)}: no settings, or not the same ones")
    prefix = f"{sections[0]}." if len(sections) == 1 and sections[0] != RECIPE else ""
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for (name, kind, _, text), *others in zip(*tables, strict=True):
        defaults = [row[2] for row in ((name, kind, _, text), *others)]
        shown = defaults[0]
        if len(set(defaults)) > 1:
            shown = ", ".join(f"{section}: {value}" for section, value in zip(sections, defaults, strict=True))
        lines.append(f"| `{prefix}{name}` | {kind} | {shown} | {text} |")
    return "\n".join(lines) + "\n" + own_defaults(sections)


def rows_below(section: str) -> list[tuple[str, str, str, str]]:
    """Name, type, default and meaning of each setting right below a section."""
    from keel.core.config import fields_of
    from keel.stages.recipe import Recipe

    prefix = "" if section == RECIPE else f"{section}."
    rows = []
    for doc in fields_of(Recipe):
        name = doc.name.removeprefix(prefix)
        if doc.name.startswith(prefix) and "." not in name:
            default = f"`{doc.default}`" if doc.default and doc.default != "required" else doc.default
            rows.append((name, cell(shortened(doc.type)), cell(default), cell(doc.help)))
    return rows


def shortened(kind: str) -> str:
    """A type without `|`, which would end a table's cell, and without the end of a long list of choices."""
    kind = re.sub(r" \| nothing (.+)$", r" \1 | nothing", kind).replace(">=", "≥").replace("<=", "≤")
    choices = kind.split(" | ")
    if len(choices) > LONGEST_CHOICE:
        return f"{', '.join(choices[:3])} … ({len(choices)} choices)"
    return " or ".join(choices)


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def own_defaults(sections: list[str]) -> str:
    """What a section holds when a recipe leaves it out, where that is not what the table says."""
    from keel.stages.recipe import Recipe

    found = []
    for name in sections if sections != [RECIPE] else []:
        owner, _, last = name.rpartition(".")
        annotation = class_at(owner) if owner else Recipe
        default = annotation.model_fields[last.removesuffix("[]")].default
        if not hasattr(default, "model_dump"):
            continue
        changed = {
            key: value
            for key, value in default.model_dump(mode="json").items()
            if value != type(default).model_fields[key].get_default(call_default_factory=True)
            and not isinstance(value, dict)
        }
        if changed:
            settings = ", ".join(f"{key}: {value}" for key, value in changed.items())
            found.append(f"- `{name}`: `{{{settings}}}`")
    if not found:
        return ""
    head = (
        "Where a recipe does not mention the section at all, these take the place of the defaults above. One key\n"
        "given in it, be it by `-s`, brings all of the table's back, so give the others too where you want them:"
    )
    return "\n".join(["", head, "", *found]) + "\n"


def class_at(section: str) -> type:
    """The Config class of a section of a recipe."""
    from keel.core.schema import sections_in
    from keel.stages.recipe import Recipe

    found: type = Recipe
    for key in section.split("."):
        (found,) = sections_in(found.model_fields[key.removesuffix("[]")].annotation)  # type: ignore[attr-defined]
    return found


def excerpt(what: str) -> str:
    """The source of one definition as a code block whose first line says where it stands."""
    path, _, name = what.partition(" ")
    text = (ROOT / path).read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        node = next(child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == part)
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    code = textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))
    return f"```python\n# {path.removeprefix('src/')}: {name}\n{code}\n```\n"


def main(arguments: list[str]) -> int:
    stale = []
    for path in sorted(DOCS.rglob("*.md")):
        page = path.read_text(encoding="utf-8")
        if (new := refreshed(page)) != page:
            stale.append(path)
            if "--check" not in arguments:
                path.write_text(new, encoding="utf-8")
    for path in stale:
        sys.stdout.write(f"{path.relative_to(ROOT)}: {'out of date' if '--check' in arguments else 'rewritten'}\n")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
