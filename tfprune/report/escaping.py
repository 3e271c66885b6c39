"""Text of others, such as names of layers, made harmless where something reads more into it."""

from __future__ import annotations

import re

# What Markdown and the HTML in it give a meaning.
_MARKDOWN = re.compile(r"([\\|*_<>&~`\[\]])")
# GitHub's Markdown, whose tables reports use, takes an underscore within a word as it is.
_WITHIN_A_WORD = re.compile(r"(?<=[A-Za-z0-9])\\_(?=[A-Za-z0-9])")
# A spreadsheet takes a cell that begins so for a formula (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@")


def one_line(text: str) -> str:
    """Text without line breaks and without what a terminal takes for a command."""
    return "".join(each if each.isprintable() else " " for each in text)


def markdown(text: str, *, everywhere: bool = False) -> str:
    """Text that GitHub's Markdown shows as it is, on one line.

    Args:
        text: of whomever.
        everywhere: whether older dialects must show it too, such as those of chats.
    """
    escaped = _MARKDOWN.sub(r"\\\1", one_line(text))
    return escaped if everywhere else _WITHIN_A_WORD.sub("_", escaped)


def markdown_code(text: str) -> str:
    """Text as a span of code, whatever backticks it has."""
    text = one_line(text)
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    # A space keeps a backtick at an end apart from the fence, and Markdown takes it away again.
    space = " " if text[:1] == "`" or text[-1:] == "`" else ""
    return f"{fence}{space}{text}{space}{fence}"


def csv_cell(text: str) -> str:
    """Text that a spreadsheet shows instead of computing it, on one line."""
    # A line break would begin another cell, which may begin as it likes.
    text = one_line(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
