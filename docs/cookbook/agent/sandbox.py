#!/usr/bin/env python3
"""A sandbox for the code of an agent: runs one command after the other, and undoes those that failed.

    sandbox.py IMAGE [--allow NAME[:PORT]]… [--memory SIZE] [--timeout SECONDS] <COMMANDS

Each line of standard input is a shell command. It runs in one container with limits, a read-only or no network, no
capabilities, and not as root. If it exits with 0, what it wrote stays, and the changes are printed as a patch. Otherwise the
files return to what they were before.

Read SECURITY.md first: a container shares the kernel of the host. For code that may attack the kernel, run this in a
virtual machine.
"""

from __future__ import annotations

import argparse
import sys

import stave

#: No existing user, and no existing group.
USER = "65534:65534"
#: A program needs no capabilities, and each one that is missing closes a way into the kernel.
FLAGS = ("--init", "--cap-drop", "ALL", "--no-new-privs")


def printable(text: str) -> str:
    """Without the control characters that move a terminal's cursor."""
    return text.translate({number: "?" for number in [*range(9), *range(11, 32), 127]})


def attempt(box: stave.Container, command: str, timeout: float, number: int) -> bool:
    """Runs a command on a snapshot. Keeps or discards what it wrote."""
    box.snapshot()
    done = box.run(["sh", "-c", command], timeout=timeout, user=USER, workdir="/work", flags=FLAGS)
    print(f"$ {command}\n{printable(done.stdout)}{printable(done.stderr)}", end="")
    if done.returncode == 0:
        print(box.patch(f"{box.id}@{number}"), end="")
        return True
    print("# " + ("it took too long" if done.returncode == 124 else f"status {done.returncode}") + ": undone")
    box.rollback()
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description="Run commands in a sandbox")
    parser.add_argument("image")
    parser.add_argument("--allow", action="append", default=[], metavar="NAME[:PORT]")
    parser.add_argument("--memory", default="256M")
    parser.add_argument("--timeout", type=float, default=10)
    arguments = parser.parse_args()
    # A patch may have bytes that are not UTF-8.
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    network = stave.Egress(allow=arguments.allow) if arguments.allow else None
    limits = stave.Limits(memory=arguments.memory, cpus=1, pids=64)
    with stave.Container.create(arguments.image, limits=limits, network=network) as box:
        box.run(["sh", "-c", f"mkdir -p /work && chown {USER} /work"])
        number = 1
        for line in sys.stdin:
            command = line.strip()
            if command and attempt(box, command, arguments.timeout, number):
                number += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
