"""`python -m realtime.client`."""

from __future__ import annotations

import sys

from realtime.client.cli import main

if __name__ == "__main__":
    sys.exit(main())
