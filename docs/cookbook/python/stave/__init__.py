"""Stave's tools from Python. Needs only the tools on the PATH, and Python 3.9 with its standard library.

    import stave

    with stave.Container.create("busybox", limits=stave.Limits(memory="64M", pids=50)) as box:
        print(box.run(["echo", "hello"]).stdout)

A container is made by a pipe of tools, and its document says what they made (docs/document.md). When this process ends, even by
SIGKILL, the containers that it made and did not `keep()` are removed.
"""

from ._container import Change, Container, Egress, Limits, Network
from ._guard import Guard
from ._tools import Document, ToolError, images, pipe, tool

__all__ = [
    "Change",
    "Container",
    "Document",
    "Egress",
    "Guard",
    "Limits",
    "Network",
    "ToolError",
    "images",
    "pipe",
    "tool",
]
