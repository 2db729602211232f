"""The full parse of lines and packs: what only reading a raw stream to its end can prove."""

from __future__ import annotations

import hashlib
import json
import tarfile
from typing import IO, cast

from mipyme_backup.errors import DamagedError
from mipyme_backup.messages import _
from mipyme_backup.process import CHUNK, Reader


def check_content(name: str, reader: Reader) -> None:
    """Read the raw stream of the artifact `name` to its end; raises DamagedError."""
    if name.endswith(".jsonl"):
        _check_lines(name, reader)
    elif name.endswith(".tar"):
        _check_pack(reader)
    else:
        raise DamagedError(_("Nothing here can read %(name)s."), name=name)


def _check_lines(name: str, reader: Reader) -> None:
    rest, number = b"", 0
    while piece := reader.read(CHUNK):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            number += 1
            try:
                json.loads(line)
            except ValueError as error:
                raise DamagedError(
                    _("Line %(number)d of %(name)s is no JSON."), number=number, name=name
                ) from error
    if rest:
        raise DamagedError(_("%(name)s ends in the middle of a line."), name=name)


def _check_pack(reader: Reader) -> None:
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", reader), mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member)
                digest = hashlib.sha256()
                while content is not None and (piece := content.read(CHUNK)):
                    digest.update(piece)
                if not member.isreg() or digest.hexdigest() != member.name:
                    raise DamagedError(
                        _("The pack holds %(name)s with other content."), name=member.name
                    )
    except tarfile.TarError as error:
        raise DamagedError(_("The pack is damaged: %(reason)s"), reason=error) from error
    while reader.read(CHUNK):
        pass
