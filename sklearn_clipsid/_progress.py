"""Report progress through scikit-learn's callbacks or a terminal bar."""

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # experimental in scikit-learn 1.9, may move without notice

    class CallbackSupportMixin:
        """Stand-in where scikit-learn has no callbacks."""

    def with_callbacks(method):
        """Return the method as it is."""
        return method


SECONDS_OF_SILENCE = 5


def slow_bar(results=None, description=None, total=None, *, unit="", unit_scale=False):
    """Return a bar on standard error that appears when something takes long.

    Parameters
    ----------
    results : iterable, default=None
        What is counted while it passes through. None counts by ``bar.update``.

    description : str, default=None
        What the bar says.

    total : int, default=None
        How many there will be.

    unit : str, default=""
        Of what.

    unit_scale : bool, default=False
        Whether to write thousands as k.

    Returns
    -------
    bar : tqdm.tqdm
        An iterable and a context manager.
    """
    from tqdm import tqdm

    return tqdm(
        results,
        description,
        total,
        unit=unit,
        unit_scale=unit_scale,
        leave=False,
        delay=SECONDS_OF_SILENCE,
    )


class RowProgress:
    """Tell how many of the rows are done.

    Parameters
    ----------
    estimator : estimator
        Who reports.

    n_rows : int
        Rows in all.

    step : int
        Rows per report to callbacks.

    description : str
        What the bar says.

    verbose : bool
        Whether to draw a bar on standard error.

    context : CallbackContext, default=None
        Where scikit-learn's callbacks listen.
    """

    def __init__(self, estimator, n_rows, step, *, description, verbose, context=None):
        self.estimator = estimator
        self.step = step
        self.context = context
        self._done = 0
        self._reported = 0
        self._bar = None
        if verbose:
            from tqdm import tqdm

            self._bar = tqdm(total=n_rows, desc=description, unit="image")

    def __enter__(self):
        return self

    def __exit__(self, error_type, *_):
        if error_type is None and self._done > self._reported:
            self._report()  # the last batch is mostly a smaller one
        if self._bar is not None:
            self._bar.close()

    def update(self, n_rows=1):
        """Count rows as done.

        Parameters
        ----------
        n_rows : int, default=1
            How many more rows are done.
        """
        self._done += n_rows
        if self._bar is not None:
            self._bar.update(n_rows)
        while self._done - self._reported >= self.step:
            self._report()

    def _report(self):
        self._reported += self.step
        if self.context is not None:
            batch = self.context.subcontext(task_name="batch")
            batch.call_on_fit_task_begin(estimator=self.estimator)
            batch.call_on_fit_task_end(estimator=self.estimator)
