"""Removes what a process made, once that process is gone."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading

#: What the guard runs. It reads `+ID INSTANCE` and `-ID` lines, and at the end of its input unwinds what is left.
_PROGRAM = """
import json, subprocess, sys
made = {}
for line in sys.stdin:
    id, *instance = line[1:].split()
    made.pop(id, None)
    if line[0] == "+":
        made[id] = {"stave": 1, "id": id, "instance": instance[0]}
for document in made.values():
    subprocess.run(["unwind", "-q"], input=json.dumps(document).encode(), stdout=subprocess.DEVNULL)
"""


class Guard:
    """A process that unwinds containers when this process ends in any way.

    The guard reads from a pipe. This process has the pipe's other end, and so have the tools that make a container
    (`descriptor`). So the guard begins when all of them are gone, and no tool makes anything later. It has its own
    session, so a signal for this process's group does not reach it.
    """

    def __init__(self) -> None:
        read, self.descriptor = os.pipe()
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            stdin=read,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(read)

    def watch(self, id: str, instance: str) -> None:
        """From now on, the container is unwound at the end, but no other one with its id. Comes before it is made."""
        self._tell("+", f"{id} {instance}")

    def release(self, id: str) -> None:
        """The container is unwound already, or stays."""
        self._tell("-", id)

    def close(self) -> None:
        """Unwinds what is left, and waits for that."""
        os.close(self.descriptor)
        self._process.wait()

    def _tell(self, sign: str, id: str) -> None:
        with self._lock:
            os.write(self.descriptor, f"{sign}{id}\n".encode())


_lock = threading.Lock()
_own: "Guard | None" = None


def own() -> Guard:
    """The guard of this process."""
    global _own
    with _lock:
        if _own is None:
            _own = Guard()
            atexit.register(_own.close)
        return _own
