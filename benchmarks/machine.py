"""Describe the machine that a benchmark ran on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def describe_machine():
    """Return one line: processor, cores, load, and versions."""
    packages = ("scikit-learn", "numpy", "torch")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{_processor()}, {os.cpu_count()} cores{load}; {platform.system()}, Python "
        f"{platform.python_version()}, {versions}"
    )


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()
