"""What a page holds, read back as its script reads it."""

import base64
import gzip
import json
import re

import numpy as np


def runs_of(page):
    """The runs of a page, as dicts whose "arrays" gives the array of a place."""
    return [unpacked(text) for text in re.findall(r'<script type="text/plain" class="run">(.*?)</script>', page)]


def unpacked(text):
    """The content of `Packer.packed`, with a function `read` of places."""
    whole = gzip.decompress(base64.b64decode(text))
    length = int(np.frombuffer(whole[:4], "<u4")[0])
    content = json.loads(whole[4 : 4 + length])

    def read(place):
        count, start = int(np.prod(place["shape"])), 4 + length + place["at"]
        return np.frombuffer(whole, "<" + place["type"], count, start).reshape(place["shape"])

    return content | {"read": read}


def weights(run, lane):
    """The decoder rows of a lane, [units, inputs]."""
    return (run["read"](lane["rows"]).astype(float) - 128) / 127 * run["read"](lane["largest_weights"])[:, None]
