"""Parsing files in other processes, a few at a time.

The workers are not made by ``multiprocessing``: that one runs the caller's script again in every worker
unless it is guarded, and forking a process with threads may hang. They are interpreters that import this
package and nothing else, so an ingest may be written at the top of a script.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor

from pgseek.sources.formats import Format
from pgseek.types import Located, Rejection

# The safe path (-P): modules of the working folder must not stand in for the library's.
_BEGIN = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.buffer.readline());"
    " from pgseek.sources.worker import main; main()"
)


class Parsers:
    """Processes that read files; each is led by a thread, which waits for its answers.

    Ctrl-C reaches this process only, and a worker whose process has gone ends with its input.
    """

    def __init__(self, processes: int) -> None:
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()
        for _ in range(processes):
            self._idle.put(None)
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="pgseek-parser")
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def submit(self, path: str, kind: Format) -> Future[Located | Rejection]:
        """Read a file in another process; see `read_file`. Who cancels it before it begins may read it."""
        return self._threads.submit(self._read, path, kind)

    def close(self) -> None:
        """End the processes, whatever they are doing. What was submitted and not read is lost."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in list(self._running):
            worker.kill()
        # A thread that had not yet seen the close may have started one more; it ends that itself.
        self._threads.shutdown(wait=True)
        for worker in list(self._running):
            self._bury(worker)

    def _read(self, path: str, kind: Format) -> Located | Rejection:
        worker = self._idle.get()
        try:
            if worker is None:
                worker = self._start()
            if self._closed:
                worker.kill()
            return self._ask(worker, path, kind)
        except (OSError, ValueError) as error:
            # It died of this file; the next is given to a new one.
            code = self._bury(worker) if worker is not None else None
            worker = None
            reason = f"the process that read it as {kind} ended (exit code {code}): {error}"
            return Rejection(0, path, reason, path)
        finally:
            self._idle.put(worker)

    def _start(self) -> subprocess.Popen[bytes]:
        worker = subprocess.Popen(  # noqa: S603 (this interpreter)
            [sys.executable, "-P", "-c", _BEGIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # A group of its own, which the terminal's Ctrl-C does not reach.
            process_group=0,
        )
        self._running.add(worker)
        _send(worker, sys.path)
        return worker

    def _ask(self, worker: subprocess.Popen[bytes], path: str, kind: Format) -> Located | Rejection:
        _send(worker, [path, kind])
        line = worker.stdout.readline() if worker.stdout is not None else b""
        if not line.endswith(b"\n"):
            raise OSError("it gave no answer")
        answer = json.loads(line)
        if len(answer) == 1:
            return Located(answer[0], 1, path)
        position, given, reason = answer
        return Rejection(position, given, reason, path)

    def _bury(self, worker: subprocess.Popen[bytes]) -> int:
        self._running.discard(worker)
        worker.kill()
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                pipe.close()
        return worker.wait()


def _send(worker: subprocess.Popen[bytes], message: object) -> None:
    if worker.stdin is None:
        raise OSError("the worker has no input")
    worker.stdin.write(json.dumps(message).encode() + b"\n")
    worker.stdin.flush()
