"""Containers: made by a pipe, removed by `unwind`."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Dict, List, Optional, Sequence, Tuple, Type, Union

from . import _guard
from ._tools import Document, ToolError, pipe, tool


@dataclass(frozen=True)
class Limits:
    """What all processes of a container may use together. None: no limit."""

    #: Bytes, or a number with K, M or G.
    memory: Union[int, str, None] = None
    #: Processors, such as 1.5.
    cpus: Optional[float] = None
    #: Processes and threads.
    pids: Optional[int] = None

    def stage(self) -> List[List[str]]:
        """The stage of the pipe."""
        values = {"--memory": self.memory, "--cpus": self.cpus, "--pids-limit": self.pids}
        words = [word for name, value in values.items() if value is not None for word in (name, str(value))]
        return [["cgroup-limit", *words]] if words else []


@dataclass(frozen=True)
class Network:
    """The container's own network, on a bridge as Docker's. Without a network, a container has only `lo`."""

    #: Published ports, as `portmap -p` takes them: `8080:80`.
    ports: Sequence[str] = ()

    def stages(self) -> List[List[str]]:
        """The stages of the pipe."""
        published = [word for port in self.ports for word in ("-p", port)]
        return [["netns-bridge"], ["veth-pair"], *([["portmap", *published]] if published else [])]


@dataclass(frozen=True)
class Egress(Network):
    """A network that reaches the listed names, addresses and ports, and nothing else (`egress-allow`)."""

    #: `github.com`, `*.debian.org:443`, `10.0.0.0/8`, `192.0.2.1:80`.
    allow: Sequence[str] = ()

    def stages(self) -> List[List[str]]:
        return [*super().stages(), ["egress-allow", *self.allow]]


@dataclass(frozen=True)
class Change:
    """A path that differs, as `union-diff` prints it."""

    path: str
    #: All that union-diff says about it.
    members: Document


def _named(id: str, document: Document) -> Document:
    """What unwind needs to know of a container: its record has the steps."""
    return {"stave": 1, "id": id, "instance": document["instance"]}


def _communicate(process: "subprocess.Popen[bytes]", most: int) -> Tuple[bytes, bytes]:
    """Reads all output of a process, and keeps the first `most` bytes of each stream. Waits for its end."""
    kept: Dict[str, bytes] = {"output": b"", "errors": b""}

    def read(name: str, stream: Optional[IO[bytes]]) -> None:
        pieces, size = [], 0
        while stream is not None and (piece := os.read(stream.fileno(), 65536)):
            pieces.append(piece[: most - size])
            size += len(pieces[-1])
        kept[name] = b"".join(pieces)

    threads = [
        threading.Thread(target=read, args=("output", process.stdout)),
        threading.Thread(target=read, args=("errors", process.stderr)),
    ]
    with process:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return kept["output"], kept["errors"]


class Container:
    """A container without a process. `run` runs one at a time in it, and its files stay between them."""

    def __init__(self, id: str, document: Document) -> None:
        self.id = id
        #: What exists, as the last tool wrote it.
        self.document = document
        self._kept = False

    @classmethod
    def create(
        cls,
        image: str,
        id: Optional[str] = None,
        limits: Limits = Limits(),
        network: Optional[Network] = None,
        volumes: Sequence[str] = (),
    ) -> Container:
        """Makes a container of an image of the store. `volumes` are as `union-mount -v` takes them: `NAME:/PATH`.

        Raises ToolError, and then nothing is left.
        """
        id = id or f"py-{secrets.token_hex(6)}"
        mounted = [word for volume in volumes for word in ("-v", volume)]
        document: Document = json.loads(tool("img-inspect", "--", image))
        # It tells this container from any other with its id.
        document["instance"] = secrets.token_hex(8)
        stages = [
            ["layer-apply", "--id", id],
            ["union-mount", *mounted],
            *limits.stage(),
            *(network.stages() if network else []),
        ]
        guard = _guard.own()
        guard.watch(id, document["instance"])
        try:
            return cls(id, json.loads(pipe(stages, document, pass_fds=[guard.descriptor])))
        except BaseException:
            # A later stage may have failed: what the earlier ones made is still there. Another container with this id is not
            # touched. If this fails, the guard tries again.
            try:
                tool("unwind", "-q", document=_named(id, document))
                guard.release(id)
            except ToolError:
                pass
            raise

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: Optional[float] = None,
        environment: Optional[Dict[str, str]] = None,
        workdir: Optional[str] = None,
        user: Optional[str] = None,
        stdout: Union[int, IO[bytes], None] = subprocess.PIPE,
        stderr: Union[int, IO[bytes], None] = subprocess.PIPE,
        flags: Sequence[str] = (),
        most: int = 16 << 20,
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a command, and waits for its end. Its status is 124 after `timeout` seconds. It dies with this process.

        Of its output and of its errors, the first `most` bytes are kept, because the container's limits do not apply here.
        `flags` are more flags of `ns-exec`, such as `--read-only`. Raises ToolError if the command did not start.
        """
        process = self.start(
            command,
            timeout=timeout,
            environment=environment,
            workdir=workdir,
            user=user,
            stdout=stdout,
            stderr=stderr,
            flags=flags,
        )
        output, errors = _communicate(process, most)
        self.ended(process, errors)
        decoded = [text.decode(errors="replace") for text in (output, errors)]
        return subprocess.CompletedProcess(list(command), process.returncode, *decoded)

    def start(
        self,
        command: Sequence[str],
        *,
        timeout: Optional[float] = None,
        environment: Optional[Dict[str, str]] = None,
        workdir: Optional[str] = None,
        user: Optional[str] = None,
        stdout: Union[int, IO[bytes], None] = subprocess.PIPE,
        stderr: Union[int, IO[bytes], None] = subprocess.PIPE,
        flags: Sequence[str] = (),
    ) -> "subprocess.Popen[bytes]":
        """As `run`, without waiting. Call `ended` once the process is reaped."""
        self._without_process()
        words = ["ns-exec", "--die-with-parent"]
        words += ["--timeout", str(timeout)] if timeout is not None else []
        words += ["--workdir", workdir] if workdir is not None else []
        words += ["--user", user] if user is not None else []
        self._written = tempfile.NamedTemporaryFile(prefix="stave-")
        with tempfile.TemporaryFile() as document, tempfile.TemporaryFile() as variables:
            document.write(json.dumps(self.document).encode())
            # Not on the command line, which everybody may read.
            for name, value in (environment or {}).items():
                variables.write(f"{name}={value}".encode() + b"\0")
            document.seek(0)
            variables.seek(0)
            words += ["--from", f"/proc/self/fd/{document.fileno()}"]
            words += ["--env-list", f"/proc/self/fd/{variables.fileno()}"] if environment else []
            words += ["--document", self._written.name, *flags, "--", *command]
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(document.fileno(), variables.fileno()),
            )

    def ended(self, process: "subprocess.Popen[bytes]", errors: Optional[bytes] = None) -> Document:
        """Notes the end of a process of `start`. Returns `process` of the document: its end, usage, and so on."""
        text = Path(self._written.name).read_text()
        self._written.close()
        if not text:
            raise ToolError("ns-exec", process.returncode, (errors or b"").decode(errors="replace").strip())
        after: Document = json.loads(text)
        if "error" in after:
            raise ToolError("ns-exec", process.returncode, after["error"]["message"])
        self.document = after
        process_member: Document = after.get("process", {})
        return process_member

    def _without_process(self) -> Document:
        """The document without the process that has ended. What it has written stays, and the next one can run."""
        if "process" in self.document:
            self.document = json.loads(tool("ns-exec", "--undo", document=self.document))
        return self.document

    def copy_out(self, source: str, target: Union[str, os.PathLike[str]]) -> None:
        """Copies a file or directory out of the container, by docker cp's rules for names."""
        # A relative path with a colon would be one in a container.
        tool("container-cp", "--", f"{self.id}:{source}", os.path.join(os.getcwd(), os.fspath(target)))

    def copy_in(self, source: Union[str, os.PathLike[str]], target: str) -> None:
        """Copies a file or directory into the container."""
        tool("container-cp", "--", os.path.join(os.getcwd(), os.fspath(source)), f"{self.id}:{target}")

    def snapshot(self) -> None:
        """Freezes what the container has written. `rollback` returns to it."""
        self.document = json.loads(tool("union-snapshot", document=self._without_process()))

    def rollback(self) -> None:
        """Discards what was written since the last snapshot, and that snapshot with it."""
        self.document = json.loads(tool("union-snapshot", "--undo", document=self._without_process()))

    def diff(self, since: Optional[str] = None) -> List[Change]:
        """What differs from a snapshot, such as `ID@1`."""
        lines = tool("union-diff", since or f"{self.id}@1", self.id).splitlines()
        changes = [json.loads(line) for line in lines]
        return [Change(change["path"], change) for change in changes]

    def patch(self, since: Optional[str] = None, most: int = 64 << 20) -> str:
        """The same as a patch for `git apply`. Bytes that are not UTF-8 are surrogates, as in names of files.

        Raises ToolError if it is larger than `most` bytes.
        """
        words = ["union-diff", "--patch", since or f"{self.id}@1", self.id]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        text, errors = _communicate(process, most + 1)
        if process.returncode != 0:
            raise ToolError("union-diff", process.returncode, errors.decode(errors="replace").strip())
        if len(text) > most:
            raise ToolError("union-diff", 0, f"the patch is larger than {most} bytes")
        return text.decode(errors="surrogateescape")

    def fork(self, id: Optional[str] = None) -> Container:
        """A container that is based on the newest snapshot of this one. Nothing is copied."""
        id = id or f"py-{secrets.token_hex(6)}"
        guard = _guard.own()
        document: Document = json.loads(tool("union-fork", "--id", id, self.id, pass_fds=[guard.descriptor]))
        guard.watch(id, document["instance"])
        return Container(id, document)

    def keep(self) -> None:
        """Leaves the container when this process ends, and after `with`."""
        self._kept = True
        _guard.own().release(self.id)

    def unwind(self) -> None:
        """Removes the container."""
        tool("unwind", "-q", document=_named(self.id, self.document))
        _guard.own().release(self.id)

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if not self._kept:
            self.unwind()
