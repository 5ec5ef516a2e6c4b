"""Synthetic image detection as ordinary scikit-learn.

Estimators are imported from here; `sklearn_clipsid.model_selection`, `.metrics`,
`.inspection` and `.datasets` mirror scikit-learn's subpackages,
`sklearn_clipsid.concepts` makes directions that stand for concepts, and
`sklearn_clipsid.persistence` saves detectors to files that are safe to load.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn_clipsid._abstaining import AbstainingClassifier
    from sklearn_clipsid._block_mixer import BlockMixer
    from sklearn_clipsid._block_selector import BlockSelector
    from sklearn_clipsid._clip_embedder import CLIPEmbedder
    from sklearn_clipsid._clip_fine_tune import CLIPFineTuneClassifier
    from sklearn_clipsid._clip_quality import CLIPQualityRegressor
    from sklearn_clipsid._common_support import CommonSupportClassifier
    from sklearn_clipsid._component_eliminator import ComponentEliminator
    from sklearn_clipsid._concept_bottleneck import ConceptBottleneckClassifier
    from sklearn_clipsid._embedding_shards import embed_to_shards
    from sklearn_clipsid._embedding_store import EmbeddingStore
    from sklearn_clipsid._head_selector import HeadSelector
    from sklearn_clipsid._orthogonal_linear import OrthogonalLinearDetector
    from sklearn_clipsid._precomputed_embedder import PrecomputedEmbedder
    from sklearn_clipsid._source_eraser import SourceEraser
    from sklearn_clipsid._text_span import TextSpan
    from sklearn_clipsid._view_augmented import ViewAugmentedClassifier

__version__ = "0.1.0.dev0"

__all__ = [
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
]

# Imported when they are asked for: `clipsid --help` needs none of them, and
# scikit-learn alone takes a second.
_HOMES = {
    "AbstainingClassifier": "_abstaining",
    "BlockMixer": "_block_mixer",
    "BlockSelector": "_block_selector",
    "CLIPEmbedder": "_clip_embedder",
    "CLIPFineTuneClassifier": "_clip_fine_tune",
    "CLIPQualityRegressor": "_clip_quality",
    "CommonSupportClassifier": "_common_support",
    "ComponentEliminator": "_component_eliminator",
    "ConceptBottleneckClassifier": "_concept_bottleneck",
    "embed_to_shards": "_embedding_shards",
    "EmbeddingStore": "_embedding_store",
    "HeadSelector": "_head_selector",
    "OrthogonalLinearDetector": "_orthogonal_linear",
    "PrecomputedEmbedder": "_precomputed_embedder",
    "SourceEraser": "_source_eraser",
    "TextSpan": "_text_span",
    "ViewAugmentedClassifier": "_view_augmented",
}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    thing = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = thing
    return thing


def __dir__():
    return sorted({*globals(), *__all__})
