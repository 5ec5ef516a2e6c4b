"""Order the gallery as one would read it."""

ORDER = [
    "plot_quickstart.py",
    "plot_photo_sources.py",
    "plot_unseen_faces.py",
    "plot_cross_dataset.py",
    "plot_report.py",
    "plot_k_ablation.py",
    "plot_compare_detectors.py",
    "plot_calibration.py",
    "plot_threshold.py",
    "plot_axes.py",
    "plot_concepts.py",
    "plot_ten_shot.py",
    "plot_fine_tuning.py",
    "plot_quality.py",
    "plot_persist.py",
    "plot_score_folder.py",
]


class ReadingOrder:
    """Sort examples by `ORDER`; those that it does not name come last."""

    def __init__(self, src_dir):
        self.src_dir = src_dir

    def __call__(self, filename):
        """Return the place of an example."""
        return ORDER.index(filename) if filename in ORDER else len(ORDER)
