"""What is here, what is missing, and the command that mends it."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import __version__
from .errors import RelumeError

REINSTALL = "pip install --force-reinstall relume"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: Its name.
        state: "ok", "missing" (something of the plain installation: restore fails without it) or
            "absent" (an extra that is not installed: nothing is wrong).
        detail: Version, path, or what came instead.
        mend: The command that changes the state; "" where there is nothing to do.
    """

    what: str
    state: str
    detail: str
    mend: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and the machine they were made on."""

    findings: tuple[Finding, ...]
    machine: dict[str, Any]

    @property
    def well(self) -> bool:
        return all(finding.state != "missing" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        found = [asdict(finding) for finding in self.findings]
        return {"well": self.well, "machine": self.machine, "findings": found}


def examine() -> Diagnosis:
    """Look at everything; imports neither torch, transformers nor openvino, opens no network
    connection."""
    findings = [
        *(_package(name, needed=True) for name in ("numpy", "pyvips", "onnxruntime")),
        _pictures(),
        *_models(),
        _package("openvino", extra="openvino", gives="the faster engine"),
        _package("torch", extra="lab", gives="training, evaluation, GPUs"),
        _package("transformers", extra="lab", gives="SAM"),
        _package("skimage", extra="regions", gives="region priors", distribution="scikit-image"),
    ]
    return Diagnosis(tuple(findings), machine())


def machine() -> dict[str, Any]:
    """Versions, cores, memory, what the CPU can do, what ONNX Runtime can run on."""
    flags = _cpu_flags()
    devices = ["cpu"]
    if find_spec("onnxruntime"):
        import onnxruntime

        gpus = {"CUDAExecutionProvider", "ROCMExecutionProvider", "DmlExecutionProvider"}
        devices += ["gpu"] if gpus & set(onnxruntime.get_available_providers()) else []
    return {
        "relume": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": _cores(),
        "memory_gb": _memory_gb(),
        "cpu_bf16": bool(flags & {"avx512_bf16", "amx_bf16", "bf16"}) if flags else None,
        "devices": devices,
        "engines": ["onnx"] * bool(find_spec("onnxruntime"))
        + ["openvino"] * bool(find_spec("openvino"))
        + ["torch"] * bool(find_spec("torch")),
    }


def _package(
    name: str, *, needed: bool = False, extra: str = "", gives: str = "", distribution: str = ""
) -> Finding:
    try:
        found = version(distribution or name) if find_spec(name) else None
    except PackageNotFoundError:
        found = "version unknown"
    what = distribution or name
    if found:
        return Finding(what, "ok", found)
    if needed:
        return Finding(what, "missing", "not installed", REINSTALL)
    return Finding(what, "absent", gives, f"pip install 'relume[{extra}]'")


def _pictures() -> Finding:
    try:
        import numpy as np

        from .image import Picture, encode

        black = Picture.from_rgb(np.zeros((1, 3, 2, 2), np.float32))
        sizes = [len(encode(black, kind)) for kind in ("png", "jpeg", "tiff", "webp")]
    except (ImportError, OSError, RelumeError) as error:
        return Finding("libvips", "missing", str(error), REINSTALL)
    ok = all(sizes)
    return Finding("libvips", "ok" if ok else "missing", "PNG, JPEG, TIFF, WebP")


def _models() -> list[Finding]:
    from .card import BUILT_IN, DEFAULT, find, names, survey_masks

    findings = []
    if DEFAULT not in names():
        words = "the default model is not in this installation"
        findings.append(Finding(f"model {DEFAULT}", "missing", words, REINSTALL))
    for name in names():
        if name in BUILT_IN:
            continue
        try:
            model = find(name)
            survey_masks(model)
        except RelumeError as error:
            findings.append(Finding(f"model {name}", "missing", str(error), REINSTALL))
        else:
            findings.append(Finding(f"model {name}", "ok", f"sha256 {model.sha256[:12]}"))
    return findings


def _cpu_flags() -> set[str]:
    """Feature words of the CPU on Linux; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    for line in lines:
        if line.startswith(("flags", "Features")):
            return set(line.split(":", 1)[1].split())
    return set()


def _cores() -> int:
    """Those this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
