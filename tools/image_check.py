"""`make image-check`: build the images, run them in every mode, measure them. `--help` tells the options.

With docker, or with buildah and podman where no Docker engine runs. The parts are in `tools.image_checks`.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.image_checks.cli import main

if __name__ == "__main__":
    # Told to end: the containers go first, as at Ctrl-C.
    signal.signal(signal.SIGTERM, lambda _signum, _frame: sys.exit(143))
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.stderr.write("image_check.py: stopped\n")
        sys.exit(130)
