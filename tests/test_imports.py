import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sklearn_clipsid

PACKAGE = Path(sklearn_clipsid.__file__).parent

# Imports point down, to a lower layer or within one subpackage.
LAYERS = {
    "_antonym_check": 1,
    "_abstaining": 3,
    "_axis_stability": 1,
    "_block_index": 0,
    "_cache_database": 1,
    "_claim_owner": 0,
    "_backward_ridge": 0,
    "_canonical_axes": 0,
    "_class_sources": 2,
    "_class_vectors": 2,
    "_common_support": 3,
    "_component_eliminator": 5,
    "_content_hash": 0,
    "_cross_entropy": 0,
    "_first_few": 0,
    "_finite_rows": 1,
    "_generator_rows": 1,
    "_groups": 1,
    "_head_ridge": 0,
    "_head_selector": 5,
    "_image_sequence": 0,
    "_nested_folds": 4,
    "_source_eraser": 3,
    "_frozen_rows": 4,
    "_gated_concepts": 0,
    "_network_drive": 0,
    "_optional": 0,
    "_progress": 0,
    "_shard_contents": 0,
    "_shard_encoder": 1,
    "_shard_files": 0,
    "_skops_import": 0,
    "_training_key": 4,
    "_training_rows": 0,
    "_unit_rows": 0,
    "_warn_user": 0,
    "_adam": 1,
    "_clip": 1,
    "_cluster_bootstrap": 1,
    "_concept_vocabulary": 1,
    "_embedding_cache": 2,
    "_embedding_memo": 1,
    "_pair_split": 2,
    "_path_rows": 1,
    "_embedding_run": 2,
    "_embedding_store": 2,
    "_lazy_encoder": 2,
    "_read_image": 2,
    "_loaded_parts": 2,
    "_model_card": 2,
    "_detector_archive": 3,
    "_block_mixer": 5,
    "_block_selector": 3,
    "_clip_embedder": 3,
    "_clip_fine_tune": 5,
    "_clip_quality": 4,
    "_quality_network": 3,
    "_quality_prompts": 2,
    "_embedding_shards": 3,
    "_concept_bottleneck": 3,
    "_orthogonal_linear": 3,
    "_precomputed_embedder": 3,
    "_text_span": 3,
    "_training_views": 3,
    "_view_augmented": 4,
    "concepts": 3,
    "datasets": 3,
    "inspection": 3,
    "metrics": 3,
    "model_selection": 3,
    "_portable_part": 4,
    "persistence": 5,
    "reference": 4,
    "report": 5,
    "cli": 7,
    "__init__": 6,
}
# Slow to import, and needed by few: only _clip may name them.
HEAVY = {
    "PIL",
    "huggingface_hub",
    "open_clip",
    "safetensors",
    "timm",
    "torch",
    "torchvision",
}
# Imported inside functions, where they are needed.
LAZY = HEAVY | {
    "dask",
    "distributed",
    "matplotlib",
    "pandas",
    "pyarrow",
    "skops",
    "tqdm",
}
SHAPELESS = {"base", "common", "helpers", "misc", "utils"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(path):
    """The top-level module or subpackage that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    """Yield (dotted name, whether it is imported with the module)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    postponed = {
        id(node)
        for scope in ast.walk(tree)
        if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef))
        or (isinstance(scope, ast.If) and "TYPE_CHECKING" in ast.unparse(scope.test))
        for node in ast.walk(scope)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, id(node) not in postponed


def test_every_module_has_a_layer():
    assert {part_of(path) for path in MODULES} == set(LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    importer = part_of(path)
    for name, _ in imports_of(path):
        top, *rest = name.split(".")
        if top != "sklearn_clipsid":
            continue
        imported = rest[0] if rest[0] in LAYERS else "__init__"
        if imported == importer and path.parent != PACKAGE:
            continue  # within a subpackage
        assert LAYERS[imported] < LAYERS[importer], f"{importer} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_late_and_by_one_layer(path):
    for name, at_once in imports_of(path):
        package = name.partition(".")[0]
        if package in HEAVY:
            assert part_of(path) == "_clip", f"{path.name} imports {name}"
        assert not (at_once and package in LAZY), f"{path.name} imports {name} at once"


def test_no_module_is_a_drawer_for_odds_and_ends():
    names = {path.stem.strip("_") for path in MODULES}
    names |= {part_of(path).strip("_") for path in MODULES}
    assert not names & SHAPELESS


def test_importing_the_package_loads_nothing_heavy():
    program = """
import sys
import sklearn, sklearn.base, sklearn.model_selection, sklearn.metrics
import sklearn.utils.estimator_checks
before = set(sys.modules)
import sklearn_clipsid
import sklearn_clipsid.datasets
import sklearn_clipsid.metrics
import sklearn_clipsid.model_selection
import sklearn_clipsid.persistence
import sklearn_clipsid.reference
import sklearn_clipsid.report
sklearn_clipsid.CLIPEmbedder().get_params()
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    loaded = set(done.stdout.split())
    assert "sklearn_clipsid" in loaded
    assert not loaded & LAZY


def test_every_public_name_has_one_home():
    assert sorted(sklearn_clipsid._HOMES) == sorted(sklearn_clipsid.__all__)
    for name in sklearn_clipsid.__all__:
        home = f"sklearn_clipsid.{sklearn_clipsid._HOMES[name]}"
        assert getattr(sklearn_clipsid, name).__module__ == home
