"""Where the RunPod Hub looks for a handler; the worker itself is `python -m handler`."""

from handler.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main())
