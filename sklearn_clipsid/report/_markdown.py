"""Write the sections of a report as Markdown."""

import re

from sklearn_clipsid.report._sections import (
    Bullets,
    Codes,
    Failures,
    Figure,
    Table,
)


def render_markdown(title, subject, sections):
    """Write a report as text.

    Parameters
    ----------
    title, subject : str
        What stands at the top.

    sections : list of Section
        All others.

    Returns
    -------
    text : str
        Markdown with the tables of GitHub.
    """
    parts = [f"# {title}", subject]
    for heading, text in section_texts(sections):
        parts += [f"## {heading}", text]
    return "\n\n".join(parts) + "\n"


def section_texts(sections):
    """Write each section without its heading.

    Parameters
    ----------
    sections : list of Section
        Figures are left out.

    Returns
    -------
    texts : list of (str, str)
        Headings and Markdown.
    """
    return [
        (
            section.title,
            "\n\n".join(filter(None, (_render(block) for block in section.blocks))),
        )
        for section in sections
    ]


def _render(block):
    match block:
        case str():
            return _escape(block)
        case Bullets():
            return "\n".join(f"- {_escape(item)}" for item in block.items)
        case Codes():
            codes = [(label, code.replace("`", "'")) for label, code in block.items]
            return "\n".join(f"- {_escape(label)}: `{code}`" for label, code in codes)
        case Table():
            table = _table(block.header, block.rows)
            return f"{_escape(block.caption)}\n\n{table}" if block.caption else table
        case Failures():
            return _table(block.header, block.table)
        case Figure():
            return ""
    raise TypeError(f"Got a block of type {type(block).__name__} but expected another.")


def _table(header, rows):
    lines = [header, ["---"] * len(header)]
    lines += [[_cell(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(map(_escape, line)) + " |" for line in lines)


def _cell(cell):
    return f"{cell.text} ({cell.interval})" if cell.interval else cell.text


def _escape(text):
    # Names may hold anything, also links and tags.
    text = re.sub(r"([\\`*\[\]|])", r"\\\1", " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;")
