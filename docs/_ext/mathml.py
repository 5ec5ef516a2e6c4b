"""Render formulas as MathML, which browsers draw themselves.

MathJax and KaTeX come from a server when a page is viewed, or need a JavaScript runtime
when it is built; MathML needs neither.
"""

import re

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.util.math import get_node_equation_number

# Without a mathematical font, browsers float these too high, or draw them upright.
EASIER_TO_DRAW = {r"\top": r"\mathsf{T}", "Â": r"\hat{A}"}
# U+2032 is raised already; as a superscript it would be tiny.
RAISED_PRIME = re.compile(r"<msup>(<mi>[^<]*</mi>)<mi>&#x02032;</mi></msup>")


def to_mathml(latex, display):
    """Return the MathML of a formula."""
    for written, easier in EASIER_TO_DRAW.items():
        latex = latex.replace(written, easier)
    mathml = convert(latex, display=display)
    prime = r'<mrow>\1<mo lspace="0" rspace="0">&#x02032;</mo></mrow>'
    return RAISED_PRIME.sub(prime, mathml)


def visit_inline(self, node):
    """Write a formula within a sentence."""
    self.body.append(to_mathml(node.astext(), "inline"))
    raise SkipNode


def visit_display(self, node):
    """Write a formula on a line of its own, with its number if it has one."""
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node["number"]:
        number = get_node_equation_number(self, node)
        self.body.append(f'<span class="eqno">({number})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append(to_mathml(node.astext(), "block"))
    self.body.append("</div>\n")
    raise SkipNode


def setup(app):
    """Register the renderer, which Sphinx then prefers to its own."""
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(visit_inline, None),
        block_renderers=(visit_display, None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
