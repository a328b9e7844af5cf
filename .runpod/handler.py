"""Where the RunPod Hub looks for a handler; the worker itself is `python -m handler`."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    # Python has put this file's folder first, where `handler` would be this file itself.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    runpy.run_module("handler", run_name="__main__")
