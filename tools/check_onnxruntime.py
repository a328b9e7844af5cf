"""Proves, while an image is built, which onnxruntime is in it: `python check_onnxruntime.py 0|1`.

The packages onnxruntime and onnxruntime-gpu own the same folder: with both installed the last one wins,
and nobody can say which that was. 0: the CPU's alone; 1: the GPU's alone, and it knows CUDA.

Exit codes: 0 as wanted; 1 not; 2 wrong usage.
"""

from __future__ import annotations

import sys
from importlib import metadata

__all__ = ["find_problem", "main"]

PACKAGES = ("onnxruntime", "onnxruntime-gpu")
CUDA = "CUDAExecutionProvider"


def find_problem(with_gpu: bool) -> str | None:
    """What is wrong with the installed packages; None if they are as wanted."""
    import onnxruntime

    installed = {each.metadata["Name"].lower() for each in metadata.distributions()}.intersection(PACKAGES)
    wanted = {PACKAGES[with_gpu]}
    if installed != wanted:
        return f"{' and '.join(sorted(installed)) or 'nothing'} is installed, and {wanted.pop()} alone is wanted"
    providers = onnxruntime.get_available_providers()
    if (CUDA in providers) != with_gpu:
        wanted_text = "is wanted" if with_gpu else "is not wanted"
        return f"onnxruntime {onnxruntime.__version__} offers {', '.join(providers)}, and {CUDA} {wanted_text}"
    return None


def main(arguments: list[str]) -> int:
    """Check; returns the exit code."""
    if arguments not in (["0"], ["1"]):
        sys.stderr.write(f"WITH_ORT_GPU: {' '.join(arguments)!r} is not legal; legal: 0, 1\n")
        return 2
    problem = find_problem(arguments == ["1"])
    if problem is not None:
        sys.stderr.write(f"check_onnxruntime.py: {problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
