"""Fills templates in a separate process, which is stopped when it takes too long or too much memory.

Templates come with prompts, from any author. The sandbox keeps them from files and from Python, but does not keep
`{{ 9 ** (9 ** 9) }}` from occupying the CPU forever, and inside the server nothing could stop that.

Run as `python -m spoton.serving.template_process`: one JSON object per line in, one per line out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from spoton.errors import DataError, SpotonError
from spoton.tasks.fill import fill

_LONGEST_LINE = 2**26
# Time to start Python and import jinja2 on a busy machine.
_START_SECONDS = 60.0


class TemplateProcess:
    """Fills templates of prompts.

    Args:
        seconds: How long one call may take.
        memory_bytes: Address space of the process, where the system can limit it.
    """

    def __init__(self, seconds: float, memory_bytes: int) -> None:
        self._seconds, self._memory = seconds, memory_bytes
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def fill(
        self, template: str, rows: Sequence[str | Mapping[str, Any]], given: Mapping[str, Any]
    ) -> list[str]:
        """See `spoton.tasks.fill.fill`.

        Raises:
            DataError: A row does not fit the template, or the template takes too long.
        """
        line = json.dumps({"template": template, "rows": rows, "given": given}).encode() + b"\n"
        async with self._lock:
            process = self._process or await self._start()
            try:
                answer = await asyncio.wait_for(_ask(process, line), self._seconds)
            except BaseException as error:
                await self._stop()  # its next output has no reader
                if not isinstance(error, TimeoutError | EOFError | OSError | ValueError):
                    raise
                raise DataError(
                    f"This prompt's template needs more than {self._seconds:g} s or too much memory. Send fewer or "
                    "shorter rows, or tune a prompt with a simpler template."
                ) from error
        found = json.loads(answer)
        if "error" in found:
            raise DataError(found["error"])
        inputs: list[str] = found["inputs"]
        return inputs

    async def close(self) -> None:
        """Ends the process."""
        async with self._lock:
            await self._stop()

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "spoton.serving.template_process", str(self._memory),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LONGEST_LINE,
            start_new_session=True,  # so that Ctrl-C reaches only the server, which still finishes its requests
        )  # fmt: skip
        self._process = process
        await asyncio.wait_for(_ask(process, b'{"template": "", "rows": [], "given": {}}\n'), _START_SECONDS)
        return process

    async def _stop(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None


async def _ask(process: asyncio.subprocess.Process, line: bytes) -> bytes:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(line)
    await process.stdin.drain()
    answer = await process.stdout.readline()
    if not answer:
        raise EOFError("the process has ended")
    return answer


def main() -> None:
    """Answers lines until the input ends."""
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        memory = int(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    for line in sys.stdin.buffer:
        try:
            answer: dict[str, Any] = {"inputs": fill(**json.loads(line))}
        except SpotonError as error:
            answer = {"error": str(error)}
        except Exception as error:  # a template can fail in unforeseen ways
            answer = {"error": f"The template fails on a row: {type(error).__name__}: {error}."}
        try:
            sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # the server has ended, so nobody would read a traceback
            os._exit(0)


if __name__ == "__main__":
    main()
