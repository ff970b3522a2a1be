"""Jinja set up once: missing names are errors, and every value is escaped for where it lands."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#!|~$&])")


def environment(package: str) -> Environment:
    """Open a package's ``templates/``; ``.html`` escapes by itself, ``.md`` by filter."""
    env = Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters["md"] = markdown_text
    env.filters["url"] = safe_url
    return env


def markdown_text(value: object) -> str:
    r"""Return text that Markdown shows as it is, on one line.

    >>> markdown_text("a | <b>\n*c*")
    'a \\| \\<b\\> \\*c\\*'
    """
    return _MARKDOWN.sub(r"\\\1", " ".join(str(value).split()))


def safe_url(value: object) -> str:
    """Return a web address fit for a link in Markdown or HTML; empty when it is none.

    >>> safe_url("javascript:alert(1)")
    ''
    >>> safe_url("https://example.org/a b|c)")
    'https://example.org/a%20b%7Cc%29'
    """
    text = str(value)
    try:
        web = urlsplit(text).scheme in ("http", "https")
    except ValueError:
        return ""
    return quote(text, safe=":/?#@!$&*+,;=%~-._") if web else ""
