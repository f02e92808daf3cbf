"""A zip archive with a JSON header and NumPy arrays: written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from mixform._typing import AnyArray
from mixform.errors import MixformError

#: What the files say they are.
NAME = "mixform model"
#: The last format there is; this version reads those up to it. Format 2 has a residual
#: structure, which readers of format 1 would not see.
FORMAT = 2
HEADER = "header.json"


class Arrays:
    """Collects arrays while a header is made, and names their places in the file."""

    def __init__(self) -> None:
        self.members: dict[str, AnyArray] = {}

    def add(self, values: AnyArray) -> str:
        """Keep an array; return its name."""
        assert values.dtype != object, "objects would be pickled"
        name = f"arrays/{len(self.members):04d}.npy"
        self.members[name] = values
        return name

    def digest(self) -> str:
        """Return the SHA-256 of all arrays in order, types and shapes included."""
        sha = hashlib.sha256()
        for values in self.members.values():
            sha.update(f"{values.dtype.str}{values.shape}".encode())
            sha.update(np.ascontiguousarray(values).view(np.uint8).data)
        return sha.hexdigest()


def write_archive(
    path: Path, header: Mapping[str, Any], arrays: Arrays, *, written: int = 1
) -> None:
    """Write a file; an old one of the name is replaced when the new one is complete.

    Parameters
    ----------
    written : the format, the lowest that can hold it

    Raises
    ------
    MixformError : it cannot be written
    """
    text = {"file": NAME, "format": written, "sha256": arrays.digest(), **header}
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(
            beside, "w", zipfile.ZIP_DEFLATED, compresslevel=1
        ) as archive:
            archive.writestr(HEADER, json.dumps(text, indent=1))
            for name, values in arrays.members.items():
                with archive.open(name, "w", force_zip64=True) as member:
                    np.lib.format.write_array(
                        cast("io.BufferedIOBase", member), values, allow_pickle=False
                    )
        beside.replace(path)
    except OSError as failure:
        raise MixformError(
            f"The file '{path}' cannot be written: {failure.strerror}.",
            hint="Check the folder and the space left.",
        ) from failure
    finally:
        beside.unlink(missing_ok=True)


def read_archive(path: Path) -> tuple[dict[str, Any], dict[str, AnyArray]]:
    """Return the header and the arrays of a file.

    Raises
    ------
    MixformError : there is no such file, it is not one of ours, of a later format,
        truncated or changed
    """
    try:
        with zipfile.ZipFile(path) as archive:
            header = _read_header(archive, path)
            arrays = Arrays()
            names = [n for n in archive.namelist() if n.startswith("arrays/")]
            for name in sorted(names):
                stream = io.BytesIO(archive.read(name))
                arrays.members[name] = np.lib.format.read_array(
                    stream, allow_pickle=False
                )
    except FileNotFoundError:
        raise MixformError(
            f"There is no file '{path}'.", hint="Check the path."
        ) from None
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError) as failure:
        raise _damaged(path) from failure
    except OSError as failure:
        raise MixformError(
            f"The file '{path}' cannot be read: {failure.strerror}.",
            hint="Check its permissions.",
        ) from failure
    if arrays.digest() != header.get("sha256"):
        raise MixformError(
            f"The data in '{path}' are not those that were saved.",
            hint="Save the model again from the fit.",
        )
    return header, arrays.members


def _read_header(archive: zipfile.ZipFile, path: Path) -> dict[str, Any]:
    try:
        header = cast("dict[str, Any]", json.loads(archive.read(HEADER)))
    except (KeyError, UnicodeDecodeError, json.JSONDecodeError):
        header = {}
    if header.get("file") != NAME:
        raise MixformError(
            f"The file '{path}' is no saved mixform model.",
            hint="Models are saved by m.save(path).",
        )
    if header["format"] > FORMAT:
        raise MixformError(
            f"The file '{path}' has format {header['format']}, written by mixform "
            f"{header['mixform']}; this version reads formats up to {FORMAT}.",
            hint="Upgrade: pip install --upgrade mixform.",
        )
    return header


def _damaged(path: Path) -> MixformError:
    with path.open("rb") as stream:
        begins_as_zip = stream.read(4) == b"PK\x03\x04"
    if not begins_as_zip:
        return MixformError(
            f"The file '{path}' is no saved mixform model.",
            hint="Models are saved by m.save(path).",
        )
    return MixformError(
        f"The file '{path}' is truncated or damaged.",
        hint="Copy it again, or save the model again from the fit.",
    )
