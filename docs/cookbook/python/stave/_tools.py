"""Runs the tools, alone and in pipes."""

from __future__ import annotations

import json
import subprocess
import tempfile
from typing import IO, Any, Dict, List, Optional, Sequence, Tuple

#: The document, as `json` reads it. Its members are those of docs/document.md.
Document = Dict[str, Any]


class ToolError(Exception):
    """A tool failed. Nothing of what it was about to make is left.

    `tool` is the name of the tool that failed, `status` the exit status of the pipe, `message` its one line, and `hint` what
    to do about it, or an empty string.
    """

    def __init__(self, tool: str, status: int, message: str, hint: str = "") -> None:
        super().__init__(f"{tool}: {message}")
        self.tool = tool
        self.status = status
        self.message = message
        self.hint = hint


def tool(*words: str, document: Optional[Document] = None, pass_fds: Sequence[int] = ()) -> str:
    """Runs one tool, and returns what it prints. `document` is for its standard input.

    Raises ToolError if it ends with another status than 0.
    """
    return pipe([words], document, pass_fds)


def pipe(
    stages: Sequence[Sequence[str]], document: Optional[Document] = None, pass_fds: Sequence[int] = ()
) -> str:
    """Runs tools as a pipe, all at once, and returns what the last one prints. `document` is for the first one.

    Raises ToolError for the first tool that fails. The others then do nothing.
    """
    running: List[Tuple[str, subprocess.Popen[bytes], IO[bytes]]] = []
    with tempfile.TemporaryFile() as given:
        if document is not None:
            given.write(json.dumps(document).encode())
            given.seek(0)
        source: Any = given if document is not None else subprocess.DEVNULL
        try:
            for words in stages:
                told = tempfile.TemporaryFile()
                process = subprocess.Popen(
                    list(words), stdin=source, stdout=subprocess.PIPE, stderr=told, pass_fds=tuple(pass_fds)
                )
                if running and running[-1][1].stdout is not None:
                    # Only the next tool reads it.
                    running[-1][1].stdout.close()
                source = process.stdout
                running.append((words[0], process, told))
            # A patch may have bytes that are not UTF-8.
            output = running[-1][1].communicate()[0].decode(errors="surrogateescape")
        except BaseException:
            # A signal of Python, or a tool that is missing: those that run undo what they have begun.
            for _, process, _ in running:
                process.terminate()
            for _, process, _ in running:
                process.wait()
            raise
    errors = []
    for name, process, told in running:
        process.wait()
        told.seek(0)
        errors.append((name, process.returncode, told.read().decode(errors="replace")))
        told.close()
    failed = [error for error in errors if error[1] != 0]
    # Status 3: an earlier one failed, and said why.
    first = next((error for error in failed if error[1] != 3), failed[0] if failed else None)
    if first is not None:
        raise _error(first[0], first[1], first[2])
    return output


def _error(name: str, status: int, told: str) -> ToolError:
    """The error of a tool, from what it printed: `TOOL: MESSAGE`, and perhaps `hint: …`."""
    lines = [line for line in told.splitlines() if line]
    hint = next((line[len("hint: ") :] for line in reversed(lines) if line.startswith("hint: ")), "")
    own = [line for line in lines if line.startswith(f"{name}: ")]
    message = own[-1][len(name) + 2 :] if own else (lines[-1] if lines else f"it ended with status {status}")
    return ToolError(name, status, message, hint)


def images() -> List[Document]:
    """The images of the store, the newest first: what `img-ls` prints."""
    found: List[Document] = json.loads(tool("img-ls"))["images"]
    return found
