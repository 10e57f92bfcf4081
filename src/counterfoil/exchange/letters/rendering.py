"""What a letter says: a subject, plain text, and the same as HTML."""

from __future__ import annotations

import textwrap
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jinja2 import Environment

_WIDTH = 76


class Words(NamedTuple):
    """What a letter says."""

    subject: str
    """One line."""
    text: str
    html: str


def render(template: str, context: dict[str, str], shop: str) -> Words:
    """A letter's words. Raises jinja2.TemplateError for one that does not exist, or that lacks something."""
    filling = {"unsubscribe_url": "", **context, "shop": shop}
    plain = _environment().get_template(f"{template}.txt")
    subject = "".join(plain.blocks["subject"](plain.new_context(filling)))
    subject = " ".join(subject.split())  # one line, whatever a name brought along
    html = _environment().get_template(f"{template}.html")
    return Words(subject, _wrapped(plain.render(filling)), html.render(filling, subject=subject))


def _wrapped(text: str) -> str:
    """Lines of a length that mail programs like (RFC 5322, section 2.1.1); addresses stay whole."""
    return "\n".join(
        line if len(line) <= _WIDTH or "://" in line else textwrap.fill(line, _WIDTH, break_long_words=False)
        for line in text.split("\n")
    )


@cache
def _environment() -> Environment:
    from jinja2 import (  # noqa: PLC0415 # a start does not need it
        Environment,
        PackageLoader,
        StrictUndefined,
        select_autoescape,
    )

    return Environment(
        loader=PackageLoader("counterfoil.exchange.letters"),
        autoescape=select_autoescape(["html"]),  # the others are sent as plain text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
