"""The documentation names every public object, and its code does what it says."""

import ast
import doctest
import importlib
import inspect
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

if not DOCS.is_dir():
    pytest.skip("the source archive has no documentation", allow_module_level=True)

# What users may import, in the order of the API page. A name that moves breaks their
# code, and saved files as well.
PUBLIC = {
    "sklearn_clipsid": [
        "CLIPEmbedder",
        "BlockSelector",
        "BlockMixer",
        "HeadSelector",
        "ComponentEliminator",
        "SourceEraser",
        "CommonSupportClassifier",
        "ViewAugmentedClassifier",
        "OrthogonalLinearDetector",
        "ConceptBottleneckClassifier",
        "CLIPFineTuneClassifier",
        "CLIPQualityRegressor",
        "TextSpan",
        "AbstainingClassifier",
        "embed_to_shards",
        "EmbeddingStore",
        "PrecomputedEmbedder",
    ],
    "sklearn_clipsid.concepts": [
        "concept_directions_from_images",
        "concept_directions_from_text",
        "photographic_edits",
        "PhotographicEdit",
    ],
    "sklearn_clipsid.inspection": [
        "AxisDisplay",
        "ConceptContributionDisplay",
        "CrossDatasetDisplay",
        "FewShotDisplay",
        "GeneratorAPDisplay",
        "RobustnessDisplay",
        "cue_profile",
        "name_components",
        "plot_collage",
    ],
    "sklearn_clipsid.model_selection": [
        "CrossGeneratorSplit",
        "LeaveOneGeneratorOut",
        "cross_dataset_validate",
        "few_shot_curve",
        "mean_average_precision_matrix",
        "robustness_table",
    ],
    "sklearn_clipsid.metrics": [
        "average_precision_by_generator",
        "krcc_score",
        "log_likelihood_ratio_cost",
        "make_mean_average_precision_scorer",
        "mean_average_precision_score",
        "minimum_log_likelihood_ratio_cost",
        "plcc_score",
        "quality_scorers",
        "srcc_score",
        "tpr_at_fpr_score",
        "wilson_interval",
    ],
    "sklearn_clipsid.datasets": [
        "equalize_images",
        "fetch_cnnspot",
        "fetch_synthbuster_plus",
        "fetch_synthclic",
        "leak_audit",
        "load_image_folder",
        "load_photographic_antonyms",
        "load_quality_scores",
        "load_sample_concepts",
        "load_sample_embeddings",
        "make_paired_images",
        "read_antonyms",
    ],
    "sklearn_clipsid.report": ["DetectionReport", "evaluate"],
    "sklearn_clipsid.reference": [
        "list_reference_detectors",
        "load_reference_head",
        "reference_pipeline",
        "soft_or_fusion",
    ],
    "sklearn_clipsid.persistence": ["dump", "load", "TRUSTED_TYPES"],
}
# numpydoc wants the type alone where one value is returned; scikit-learn, whose
# grammar we follow, names it as well.
NOT_OUR_STYLE = {"RT02"}
# Extended summary, examples and See Also stand once, in the docstring of the class.
IN_THE_CLASS = {"ES01", "EX01", "SA01"}

PAGES = sorted(
    path for path in DOCS.rglob("*.md") if "_build" not in path.relative_to(DOCS).parts
)


def public_docstrings():
    """Return the names of public classes, methods and functions; True for methods."""
    names = []
    for module, members in PUBLIC.items():
        for member in members:
            thing = getattr(importlib.import_module(module), member)
            if callable(thing):
                names.append((f"{module}.{member}", False))
            if inspect.isclass(thing):
                names += [
                    (f"{module}.{member}.{name}", True)
                    for name, attribute in vars(thing).items()
                    if inspect.isroutine(attribute)
                    # scikit-learn documents set_fit_request and the like.
                    and not name.startswith("_")
                    and not name.endswith("_request")
                ]
    return names


EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))


def code_of(page, language):
    """Return the code of a page in one language, every other line left empty."""
    lines, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = line == f"```{language}"
            line = ""
        lines.append(line if inside else "")
    return "\n".join(lines)


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_the_ones_listed_here(module):
    public = importlib.import_module(module)
    if hasattr(public, "__all__"):
        assert sorted(public.__all__) == sorted(PUBLIC[module])
    assert all(hasattr(public, name) for name in PUBLIC[module])


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_on_the_api_page(module):
    page = (DOCS / "api.rst").read_text(encoding="utf-8")
    section = page.partition(f".. currentmodule:: {module}\n")[2]
    section = section.partition(".. currentmodule::")[0]
    listed = re.findall(r"^(?:   |\.\. autodata:: )(\w+)$", section, re.MULTILINE)
    assert sorted(listed) == sorted(PUBLIC[module])


@pytest.mark.parametrize(("name", "is_method"), public_docstrings())
def test_public_docstrings_are_complete(name, is_method):
    validate = pytest.importorskip("numpydoc.validate").validate
    not_asked = NOT_OUR_STYLE | (IN_THE_CLASS if is_method else set())
    errors = [
        f"{code}: {text}"
        for code, text in validate(name)["errors"]
        if code not in not_asked
    ]
    assert not errors


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if code_of(page, "pycon").strip()],
    ids=lambda page: page.stem,
)
def test_sessions_on_a_page_print_what_they_say(page):
    sessions = code_of(page, "pycon")
    # One namespace for the page, as later sessions use the names of earlier ones.
    test = doctest.DocTestParser().get_doctest(sessions, {}, page.name, str(page), 0)
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_on_a_page_imports_what_is_there(page):
    for node in ast.walk(ast.parse(code_of(page, "python"), filename=str(page))):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_every_example_has_a_place_in_the_gallery(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    monkeypatch.delitem(sys.modules, "reading_order", raising=False)
    order = importlib.import_module("reading_order").ORDER
    assert sorted(order) == [path.name for path in EXAMPLES]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_can_be_read_in_one_sitting(example):
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run_without_a_warning(example, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    plt = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)  # where they write
    try:
        runpy.run_path(str(example))
    finally:
        plt.close("all")
