"""An answer's bytes as they were before a server compressed them, in small pieces, so that whoever reads them
can stop at a limit. (httpx unfolds a whole chunk at once, and as many times as the server names: 270 bytes
called `gzip, gzip` are 64 MB in memory before anyone can look.)"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import httpx

_PIECE = 1 << 16
_PLAIN = "identity"
_GZIP = ("gzip", "x-gzip")


class EncodedError(Exception):
    """The answer is encoded in a way that isn't read, or not in the way that it says."""


class CutOffError(Exception):
    """Fewer bytes came than there should be."""


def is_plain(response: httpx.Response) -> bool:
    """Whether the bytes come as they are."""
    return _encoding(response) == _PLAIN


def decoded(response: httpx.Response) -> Iterator[bytes]:
    """The bytes of a response that is being streamed, in pieces: as they come, or, of one that was
    compressed once, of at most 64 KiB.

    Raises EncodedError, and CutOffError where compressed bytes end before their end."""
    encoding = _encoding(response)
    if encoding == _PLAIN:
        return response.iter_raw()
    if encoding not in _GZIP:
        raise EncodedError(f"the server sends it as {encoding!r} though asked for it as it is")
    return _unzipped(response.iter_raw())


def _encoding(response: httpx.Response) -> str:
    return str(response.headers.get("Content-Encoding", _PLAIN)).strip().lower()


def _unzipped(chunks: Iterator[bytes]) -> Iterator[bytes]:
    unzip = _decompressor()
    try:
        for chunk in chunks:
            piece, rest = b"", chunk
            while rest or len(piece) == _PIECE:  # a full piece may have left something behind
                if unzip.eof:  # files that were compressed one by one and joined
                    unzip = _decompressor()
                piece = unzip.decompress(rest, _PIECE)
                rest = unzip.unconsumed_tail or unzip.unused_data
                yield piece
    except zlib.error as error:
        raise EncodedError(f"what the server calls gzip is none ({error})") from None
    if not unzip.eof:
        raise CutOffError("the compressed answer ends in its midst")


def _decompressor() -> zlib._Decompress:
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
