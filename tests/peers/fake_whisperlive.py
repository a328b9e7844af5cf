"""Stands in for `bench/peer/launch.py`: the same arguments and protocol, no model.

The last part of the model directory's name says how it behaves. It writes what it was given into that
directory, and starts a child of its own, which must not outlive it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--model", type=Path)
    args, rest = parser.parse_known_args()
    behaviour = args.model.name
    if behaviour == "dying":
        sys.exit("no such model")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    told = {"rest": rest, "child": child.pid, "threads": os.environ["OMP_NUM_THREADS"], "cwd": str(Path.cwd())}
    unfinished = args.model / "unfinished"
    unfinished.write_text(json.dumps(told))
    unfinished.rename(args.model / "told")
    print('PEER {"versions": {"whisper-live": "0.10.0"}}', flush=True)

    def answer(socket: ServerConnection) -> None:
        uid = json.loads(socket.recv())["uid"]
        if behaviour == "full":
            socket.send(json.dumps({"uid": uid, "status": "WAIT", "message": 1.5}))
            return
        print("INFO:root:Using Device=cpu with precision int8", flush=True)
        socket.send(json.dumps({"uid": uid, "message": "SERVER_READY", "backend": "faster_whisper"}))
        n_bytes = 0
        try:
            while True:
                n_bytes += len(socket.recv())
                if behaviour == "hearing" and n_bytes > 4 * 16_000:
                    segment = {"start": "0.000", "end": "1.000", "text": " Hello", "completed": False}
                    socket.send(json.dumps({"uid": uid, "segments": [segment]}))
        except ConnectionClosed:
            pass

    with serve(answer, "127.0.0.1", args.port) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
