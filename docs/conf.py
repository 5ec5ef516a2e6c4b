"""Sphinx configuration; the build needs no network."""

import os
import re
import sys
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"  # bars would fill the gallery
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from sklearn_clipsid import __version__

project = "sklearn_clipsid"
author = "The sklearn_clipsid developers"
copyright = f"2026, {author}"
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "mathml",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "**/GALLERY_HEADER.rst"]
# Backticks in docstrings name parameters, attributes and values.
default_role = "literal"
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
toc_object_entries_show_parents = "hide"
autodoc_default_options = {"member-order": "bysource"}
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"[\\/]plot_",
    "within_subsection_order": "reading_order.ReadingOrder",
    "abort_on_example_error": True,
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("sklearn_clipsid",),
    "reference_url": {"sklearn_clipsid": None},
    "image_srcset": ["2x"],
    # That page would load its scripts from the network.
    "write_computation_times": False,
    "show_memory": False,
    "show_signature": False,
    "download_all_examples": False,
}

html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 7,
    "navbar_persistent": ["search-button"],
}
html_sidebars = {"install": [], "quickstart": [], "glossary": [], "changelog": []}
html_context = {"default_mode": "auto"}


def skip_request_methods(app, what, name, obj, skip, options):
    """Leave out the methods that scikit-learn generates for metadata routing."""
    return skip or re.fullmatch(r"set_\w+_request", name) is not None


def setup(app):
    """Connect the rule above."""
    app.connect("autodoc-skip-member", skip_request_methods)
