"""Reads the JSON of an archive within limits: a small text becomes large objects, and any text may be named again."""

from __future__ import annotations

import itertools
import re

from pykka_imagestore.core.byte_source import ByteSource
from pykka_imagestore.core.format_error import FormatError
from pykka_imagestore.core.layer_blob import LayerBlob
from pykka_imagestore.core.totals import Totals
from pykka_imagestore.text import shown

MAX_JSON_BYTES = 4 << 20
_JSON_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|([,:\[{])', re.DOTALL)  # a text, or what stands before a value


class JsonReader:
    """Reads the JSON of one archive.

    Args:
        totals: Counts what is read.
    """

    def __init__(self, totals: Totals) -> None:
        self._totals = totals

    def read(self, blob: LayerBlob, source: ByteSource) -> bytes:
        """Return the bytes of a member.

        Args:
            source: What they are read from.

        Raises:
            FormatError: It is larger than JSON here may be.
            LimitExceededError: All JSON together is, or there are too many values in it.
        """
        member = f"its member {shown(blob.name)}"
        if blob.size > MAX_JSON_BYTES:
            msg = f"has {blob.size} bytes; {MAX_JSON_BYTES} is the limit for JSON"
            raise FormatError(msg, (member,))
        self._totals.add("json_bytes", blob.size, "bytes of JSON")
        data = source.read(blob.size)
        most = self._totals.limits.json_values
        if sum(map(data.count, (b",", b":", b"[", b"{"))) > most:  # perhaps in texts
            values = itertools.islice((token for token in _JSON_TOKEN.finditer(data) if token[1]), most + 1)
            count = sum(1 for _ in values)
            self._totals.check("json_values", count, f"{member} has more values of JSON")
        return data
