"""Describe the machine that a benchmark ran on, and the memory it took."""

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path


def describe_machine():
    """Return one line: processor, cores, bf16 instructions, load, and versions."""
    packages = ("scikit-learn", "numpy", "torch")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{_processor()}, {os.cpu_count()} cores{_bf16_instructions()}{load}"
        f"{_in_torch()}; {platform.system()}, Python {platform.python_version()}, "
        f"{versions}"
    )


def peak_memory():
    """Return the most bytes that this process has held in memory."""
    # Not ru_maxrss where it can be helped: on Linux a process that was started by a
    # larger one inherits its peak.
    for line in _lines("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _processor():
    names = [
        line.split(":", 1)[1].strip()
        for line in _lines("/proc/cpuinfo")
        if "model name" in line
    ]
    return names[0] if names else platform.processor() or platform.machine()


def _bf16_instructions():
    flags = next((x for x in _lines("/proc/cpuinfo") if x.startswith("flags")), "")
    has = {name: f" {name} " in f"{flags} " for name in ("amx_bf16", "avx512_bf16")}
    if not flags:
        return ""
    return "".join(
        f", {name} {'yes' if there else 'no'}" for name, there in has.items()
    )


def _in_torch():
    torch = sys.modules.get("torch")  # not imported for this
    if torch is None:
        return ""
    threads = f", {torch.get_num_threads()} torch threads"
    if torch.cuda.is_available():
        return f", {torch.cuda.get_device_name()}{threads}"
    return threads


def _lines(path):
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
