#!/usr/bin/env python3
"""A CI runner: runs the jobs of a file, some at once, and prints their output as it arrives.

    runner.py JOBS.json [--at-once N] [--artefacts DIR]

JOBS.json is a list of objects: `name`, `image`, `script`, and perhaps `timeout` (seconds), `memory`, `pids` and `artefacts` (a
directory of the container, which is copied to DIR/NAME). Writes DIR/results.json. Exits with 1 if a job failed.

Each job has its own container, without a network. Nothing of a job is left when it has ended, or when the runner is killed, even
with SIGKILL.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Dict, List, Optional

import stave


@dataclass(frozen=True)
class Job:
    name: str
    image: str
    script: str
    timeout: float = 60
    memory: str = "256M"
    pids: int = 100
    artefacts: Optional[str] = None

    def __post_init__(self) -> None:
        # It becomes a directory's name. A jobs file decides nothing outside of it.
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name) or self.name == "results.json":
            raise ValueError(f"a job's name cannot be {self.name!r}")


@dataclass(frozen=True)
class Result:
    name: str
    #: The script's exit status; 124 after a timeout; None if the job could not begin.
    status: Optional[int]
    #: Seconds since the runner began.
    started: float
    ended: float
    #: Microseconds on all processors.
    cpu_time: Optional[int]
    error: Optional[str] = None


class Runner:
    def __init__(self, artefacts: Path) -> None:
        self.artefacts = artefacts
        self.begin = time.monotonic()
        self._printing = threading.Lock()

    def _print(self, name: str, line: str) -> None:
        with self._printing:
            print(f"{name} | {line}", flush=True)

    def _follow(self, name: str, output: IO[bytes]) -> None:
        """Prints each line at once."""
        # A line may have no end.
        for line in iter(lambda: output.readline(64 << 10), b""):
            self._print(name, line.decode(errors="replace").rstrip("\n"))

    def run(self, job: Job) -> Result:
        started = time.monotonic() - self.begin
        status, cpu_time, error = None, None, None
        try:
            limits = stave.Limits(memory=job.memory, pids=job.pids)
            with stave.Container.create(job.image, limits=limits) as box:
                # With an init, a signal after the timeout ends a shell, too.
                process = box.start(
                    ["sh", "-c", job.script], timeout=job.timeout, stderr=subprocess.STDOUT, flags=["--init"]
                )
                with process:
                    assert process.stdout is not None
                    self._follow(job.name, process.stdout)
                status = process.returncode
                cpu_time = box.ended(process).get("usage", {}).get("cpuTime")
                if job.artefacts is not None:
                    target = self.artefacts / job.name
                    target.mkdir(parents=True, exist_ok=True)
                    box.copy_out(f"{job.artefacts}/.", target)
        except stave.ToolError as failed:
            error = str(failed)
        words = error or ("timed out" if status == 124 else f"ended with status {status}")
        self._print(job.name, f"-- {words}")
        return Result(job.name, status, started, time.monotonic() - self.begin, cpu_time, error)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run jobs in containers")
    parser.add_argument("jobs", type=Path)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--artefacts", type=Path, default=Path("artefacts"))
    arguments = parser.parse_args()
    listed: List[Dict[str, Any]] = json.loads(arguments.jobs.read_text())
    jobs = [Job(**job) for job in listed]
    if len({job.name for job in jobs}) < len(jobs):
        raise ValueError("two jobs have the same name")
    runner = Runner(arguments.artefacts)
    with ThreadPoolExecutor(max_workers=arguments.at_once) as workers:
        results = list(workers.map(runner.run, jobs))
    arguments.artefacts.mkdir(parents=True, exist_ok=True)
    (arguments.artefacts / "results.json").write_text(json.dumps([asdict(result) for result in results], indent=2))
    return 0 if all(result.status == 0 and result.error is None for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
