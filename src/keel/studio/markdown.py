"""Prompts, answers and guides as HTML that is safe to put into a page.

The Markdown parser passes no HTML on (it stays text), and what it makes is cleaned once more against a short list of
elements. Pictures are shown by their description: fetched from elsewhere they would tell who judges when.
"""

from collections.abc import Sequence
from functools import lru_cache

import nh3
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from keel.data.records import Prompt, prompt_text

ELEMENTS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "code", "em", "strong", "s"),
    *("ul", "ol", "li", "a", "table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}, "code": {"class"}, "th": {"align"}, "td": {"align"}}
CACHED, LONGEST_CACHED = 4096, 20_000
"""Texts kept rendered, and the characters of the longest among them: at most about 200 MB, usually 10."""


def _picture(self: RendererHTML, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
    """A picture as its description, which is enough to judge by where a model writes pictures at all."""
    described = self.renderInlineAsText(tokens[at].children or [], options, env)
    return f"[{escapeHtml(described or 'picture')}]"


_parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
_parser.add_render_rule("image", _picture)


def safe_html(text: str) -> str:
    """`text` as Markdown, in HTML without scripts, styles, pictures or forms; links open outside and tell nothing."""
    return _cached(text) if len(text) <= LONGEST_CACHED else _rendered(text)


def chat_html(prompt: Prompt) -> str:
    """A prompt in HTML: a text or a lone user turn as it is, other chats as one section a turn with its role."""
    if isinstance(prompt, str) or (len(prompt) == 1 and prompt[0].role == "user"):
        return safe_html(prompt_text(prompt))
    turns = ((escapeHtml(message.role), safe_html(message.content)) for message in prompt)
    return "".join(f'<section class="turn"><h4 class="role">{role}</h4>{content}</section>' for role, content in turns)


def _rendered(text: str) -> str:
    return nh3.clean(
        _parser.render(text),
        tags=ELEMENTS,
        attributes=ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


_cached = lru_cache(maxsize=CACHED)(_rendered)
