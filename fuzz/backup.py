"""
Streams of backups with anything in them: one is restored whole, or refused; nothing is written beside its directory.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from darner.errors import StoreError
from darner.store.backup.folder import verify
from darner.store.backup.restoring import restore_stream
from darner.store.directory import check_directory


def check(data: bytes) -> None:
    """
    @param data: a stream.
    @raise AssertionError: something is written outside, or a server would start on a part.
    """
    directory = Path(tempfile.mkdtemp(prefix="darner-fuzz-"))
    target = directory / "one" / "data"
    try:
        try:
            contents = restore_stream(io.BytesIO(data).read, target)
        except StoreError:
            try:
                check_directory(target)
            except StoreError:
                pass
            else:
                raise AssertionError("a server would start on a part of a backup") from None
        else:
            check_directory(target)
            verify(target, contents)
        assert [path.name for path in directory.iterdir()] == ["one"]
        assert [path.name for path in (directory / "one").iterdir()] == ["data"]
        assert not any(path.is_symlink() for path in target.rglob("*"))
    finally:
        shutil.rmtree(directory)
