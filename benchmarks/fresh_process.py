"""Run one step of a benchmark in a process of its own."""

import json
import subprocess
import sys
import time


def add_step_options(parser, *others):
    """Add the options by which a benchmark calls itself."""
    for name in ("--step", *others):
        parser.add_argument(name, help="set by the benchmark itself")


class FreshProcess:
    """The benchmark once more, started with its own options and with `--step`.

    Parameters
    ----------
    step : str
        What to do; it prints one line of JSON at the end.

    **options : dict
        Options in the place of those of the command line; None leaves them.
    """

    def __init__(self, step, **options):
        command = [sys.executable, *sys.argv, "--step", step]
        for name, value in options.items():
            if value is not None:
                command += [f"--{name.replace('_', '-')}", str(value)]
        print("running", *command[2:], file=sys.stderr)
        self.started = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def result(self):
        """Wait, and return what the step printed and its seconds as a whole."""
        out, _ = self.process.communicate()
        if self.process.returncode:
            raise SystemExit(f"A step failed: {self.process.args}")
        whole = time.perf_counter() - self.started
        return {**json.loads(out.splitlines()[-1]), "whole": whole}
