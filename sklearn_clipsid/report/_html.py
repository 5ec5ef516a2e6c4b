"""Write a report as one page that needs no other file."""

import base64
import io
from html import escape

from sklearn_clipsid.report._figures import draw_figure
from sklearn_clipsid.report._sections import (
    Bullets,
    Codes,
    Failures,
    Figure,
    Table,
)

TEXT = ' class="text"'
THUMBNAIL = 200  # pixels
STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; color: #1a1a1a;
  background: #fff; font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-top: 1px solid #ccc;
  padding-top: .8rem; }
p, ul { max-width: 46rem; }
li { margin: .25rem 0; overflow-wrap: anywhere; }
.first li { font-size: 1.05rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .92rem; }
caption { text-align: left; padding-bottom: .4rem; color: #444; }
th, td { padding: .3rem .6rem; text-align: right; vertical-align: top;
  border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
td:first-child { max-width: 18rem; overflow-wrap: anywhere; }
figcaption { color: #444; font-size: .9rem; max-width: 46rem; }
.text { text-align: left; }
th { font-weight: 600; vertical-align: bottom; }
small { display: block; color: #444; font-size: .78rem; white-space: nowrap; }
img { max-width: 100%; height: auto; }
figure { margin: 1rem 0; }
.thumbnails { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.thumbnails figure { margin: 0; font-size: .8rem; overflow-wrap: anywhere; }
.thumbnails img { width: 100%; background: #eee; }
code { font-size: .85em; }
@media (max-width: 40rem) {
  body { padding: .7rem; }
  th, td { padding: .2rem .25rem; }
  table { font-size: .78rem; }
  td:first-child { overflow-wrap: break-word; max-width: 7rem; }
  small { font-size: .66rem; }
}
"""


def render_html(title, report, sections):
    """Write a report as a page.

    Parameters
    ----------
    title : str
        What stands at the top.

    report : DetectionReport
        For figures and thumbnails.

    sections : list of Section
        What to show.

    Returns
    -------
    page : str
        HTML, with figures and images inside.
    """
    body = [f"<h1>{escape(title)}</h1>", f"<p>{escape(report.subject)}</p>"]
    detector = " ".join(report.models["detector"].split())
    body.append(f"<p><code>{escape(detector)}</code></p>")
    for number, section in enumerate(sections):
        blocks = "\n".join(_render(block, report) for block in section.blocks)
        name = ' class="first"' if number == 0 else ""
        heading = f"<h2>{escape(section.title)}</h2>"
        body.append(f"<section{name}>{heading}\n{blocks}\n</section>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Without it a browser asks the server for one.
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _render(block, report):
    match block:
        case str():
            return f"<p>{escape(block)}</p>"
        case Bullets():
            items = "\n".join(f"<li>{escape(item)}</li>" for item in block.items)
            return f"<ul>\n{items}\n</ul>"
        case Codes():
            items = "\n".join(
                f"<li>{escape(label)}: <code>{escape(code)}</code></li>"
                for label, code in block.items
            )
            return f"<ul>\n{items}\n</ul>"
        case Table():
            return _table(block.header, block.rows, block.caption)
        case Figure():
            image = _data_url("svg+xml", draw_figure(block.name, report))
            caption = f"<figcaption>{escape(block.caption)}</figcaption>"
            image = f'<img src="{image}" alt="{escape(block.alt)}">'
            return f"<figure>{image}{caption * bool(block.caption)}</figure>"
        case Failures() if report.images is None:
            return _table(block.header, block.table)
        case Failures():
            return _thumbnails(block.rows, report.images)
    raise TypeError(f"Got a block of type {type(block).__name__} but expected another.")


def _table(header, rows, caption=""):
    words = [_is_words(cell) for cell in rows[0]]
    head = "".join(
        f'<th scope="col"{TEXT * is_words}>{escape(text)}</th>'
        for text, is_words in zip(header, words)
    )
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    caption = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{caption}\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _is_words(cell):
    return cell.text[:1].isalpha() or cell.text == "-"


def _cell(cell):
    style = ""
    if cell.shade is not None:
        # From orange for wrong over white for guessing to blue for right.
        hue, strength = (205, cell.shade - 0.5) if cell.shade > 0.5 else (35, 0.5)
        strength = strength if cell.shade > 0.5 else 0.5 - cell.shade
        style = f' style="background: hsl({hue} 80% {100 - 50 * strength:.0f}%)"'
    elif _is_words(cell):
        style = TEXT
    interval = f"<small>{escape(cell.interval)}</small>" if cell.interval else ""
    return f"<td{style}>{escape(cell.text)}{interval}</td>"


def _thumbnails(failures, images):
    from sklearn_clipsid._clip._images import save_image

    figures = []
    for row in failures:
        pixels = _read_again(images[row["row"]], THUMBNAIL, f"at index {row['row']}")
        file = io.BytesIO()
        save_image(pixels, file, format="JPEG", quality=80)
        image = _data_url("jpeg", file.getvalue())
        caption = f"{row['kind']}, {row['group']}, row {row['row']}"
        caption += f", score {row['score']:.2f}"
        figures.append(
            f'<figure><img src="{image}" alt="{escape(caption)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    return f'<div class="thumbnails">{"".join(figures)}</div>'


def _read_again(image, size, place):
    from sklearn_clipsid.inspection._collage import read_thumbnail

    try:
        return read_thumbnail(image, size, place)
    except ValueError as error:
        raise ValueError(
            f"{error} It was there when it was evaluated; put it back, or set "
            "report.images = None for a page without thumbnails."
        ) from error


def _data_url(kind, data):
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
