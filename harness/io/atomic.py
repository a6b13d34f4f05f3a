"""Files that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


class OutputError(OSError):
    """An output file cannot be written; the message says which and why."""


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path in the folder of `path`, with the same suffix, moved onto `path` when the block ends
    well.

    On any failure, Ctrl-C included, the temporary file is removed and an older file at `path` stays as it
    was.

    Raises:
        OutputError: the folder is missing or cannot be written, or `path` is a folder. Raised before the
            block runs.

    Example:
        >>> with atomic_path("result.csv") as temporary:  # doctest: +SKIP
        ...     _ = temporary.write_text("frame,x_nm,y_nm")
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"cannot write {target}: it is a folder; give a file name in it")
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {target}: there is no folder {target.parent}; make it first")
    temporary = target.with_name(f".{target.stem}-{secrets.token_hex(4)}.part{target.suffix}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror} ({target.parent})") from error
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
