"""docs/studio-api.md lists every endpoint with who may call it, as the source has it."""

from pathlib import Path

from helpers.studio import Studio

from keel.studio.api import access
from keel.studio.settings import StudioSettings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "studio-api.md"
BEGIN, END = "<!-- endpoints -->\n", "<!-- end -->"
WHO = {
    access.ANYONE: "anyone",
    access.SIGNED_IN: "whoever is signed in",
    access.ADMIN: "admins",
    access.MEMBERS: "members",
    access.JUDGES: "raters, seniors, leads",
    access.FIGURES: "viewers, seniors, leads",
    access.SENIORS: "seniors, leads",
    access.LEADS: "leads",
}


def table(openapi):
    lines = ["| endpoint | who | does |", "|---|---|---|"]
    for (method, path), allowed in access.ACCESS.items():
        told = openapi["paths"]["/api/v1" + path][method.lower()]["description"].split("\n\n")[0].replace("\n", " ")
        lines.append(f"| `{method} {path}` | {WHO[allowed]} | {told} |")
    return "\n".join(lines) + "\n"


def test_the_page_lists_every_endpoint(tmp_path):
    wanted = table(Studio(tmp_path / "studio.sqlite").app.openapi())
    page = PAGE.read_text(encoding="utf-8")
    listed = page[page.index(BEGIN) + len(BEGIN) : page.index(END)].strip() + "\n"
    assert listed == wanted, f"put this between the comments of {PAGE.name}:\n{wanted}"


def test_every_operation_says_what_it_does_and_every_field_has_a_type(tmp_path):
    described = Studio(tmp_path / "studio.sqlite").app.openapi()
    assert described["info"]["title"] == "keel studio"
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], f"{method} {path}"
            assert operation["tags"]
            assert {"401", "403", "404", "422", "429"} <= operation["responses"].keys()


def test_the_limits_on_the_page_are_those_of_the_settings():
    page, limits = PAGE.read_text(encoding="utf-8"), StudioSettings()
    for told in (
        f"{limits.login_attempts} in {limits.login_window_s / 60:.0f} minutes",
        f"{limits.requests_per_s:.0f} a second, {limits.requests_burst} at once",
        f"{limits.max_body >> 20} MiB",
        f"{limits.max_import >> 20} MiB",
        f"{limits.session_days:.0f} days",
    ):
        assert told in page
