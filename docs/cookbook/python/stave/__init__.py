"""Stave's tools from Python. Needs the tools on the PATH, and nothing else than Python 3.9 and its standard library.

    import stave

    with stave.Container.create("busybox", limits=stave.Limits(memory="64M", pids=50)) as box:
        print(box.run(["echo", "hello"]).stdout)

A container is made by a pipe of tools, and its document tells what they made (docs/document.md). Whatever happens to this
process, also SIGKILL: the containers that it made and did not `keep()` are removed.
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
