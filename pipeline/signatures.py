"""Tell what a file is by its first bytes, where it is not what its name says."""

from __future__ import annotations

HEAD_BYTES = 512
"""The number of first bytes that are looked at."""

WEB_PAGE = "a web page"
LFS_POINTER = "a pointer of Git LFS"

_STARTS = {
    b"version https://git-lfs": LFS_POINTER,
    b"\x89PNG\r\n\x1a\n": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"FLV\x01": "an FLV film",
    b"\x30\x26\xb2\x75": "a Windows Media (ASF) file",
    b"OggS": "an Ogg file",
    b"fLaC": "a FLAC sound",
    b"ID3": "an MP3 sound",
    b"\xff\xfb": "an MP3 sound",
    b"#EXTM3U": "a playlist",
    b"ffconcat": "a playlist",
    b"\x00\x00\x01\xba": "an MPEG program stream",
}
_RIFF = {b"AVI ": "an AVI film", b"WAVE": "a WAV sound", b"WEBP": "a WebP picture"}
_WEB_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head")
_TS_PACKET = 188


def looks_like(head: bytes) -> str:
    r"""Name what begins so, in words with their article; empty when nothing is known of it.

    >>> looks_like(b"\xef\xbb\xbf\n<!DOCTYPE html><title>Sign in</title>"), looks_like(b"GIF89a")
    ('a web page', 'a GIF picture')
    >>> looks_like(b'{"error": "not found"}'), looks_like(bytes(range(128, 256)))
    ('a text', '')
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_WEB_PAGES):
        return WEB_PAGE
    for start, words in _STARTS.items():
        if head.startswith(start):
            return words
    if head.startswith(b"RIFF"):
        return _RIFF.get(head[8:12], "")
    if head[:1] == b"G" == head[_TS_PACKET : _TS_PACKET + 1]:
        return "an MPEG transport stream"
    if not head.strip(b"\x00"):
        return "zeros"
    return "a text" if head.isascii() and b"\x00" not in head else ""
