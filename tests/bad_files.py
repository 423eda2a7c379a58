"""Files that are not what they claim to be: of samples, and of finished runs."""

import json
import os
import pickle
import struct
import zipfile
from io import BytesIO

import h5py
import numpy as np

RNG = np.random.default_rng(0)
GOOD = RNG.uniform(0.1, 0.9, (40, 6)).astype(np.float32)
IMAGES = RNG.normal(size=(2, 30, 30))
MARKER = "unpickled"


class Bomb:
    """Makes a folder called MARKER where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (MARKER,)


def npy(values):
    stream = BytesIO()
    np.save(stream, values, allow_pickle=True)
    return stream.getvalue()


def headed(header, body=bytes(200), version=(1, 0)):
    """A .npy file of that header, in the words of numpy's own."""
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + body


def described(shape, kind="<f8"):
    return f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}"


def zipped(*members, method=zipfile.ZIP_DEFLATED):
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


def changed(content, **bytes_at):
    """A .npz of one member with bytes of its local header and of its entry in the directory replaced."""
    content = bytearray(content)
    entry = content.rfind(b"PK\x01\x02")
    content[bytes_at["local"]] = content[entry + bytes_at["entry"]] = bytes_at["value"]
    return bytes(content)


def with_one(values, one):
    values = values.astype(float)
    values.flat[7] = one
    return values


def labelled(labels):
    return zipped(("samples.npy", npy(GOOD)), ("labels.npy", npy(labels)))


STORED = zipped(("a.npy", npy(GOOD)), method=zipfile.ZIP_STORED)

ARRAYS = {
    "good.npy": GOOD,
    "one.npy": GOOD[:1],
    "two.npy": GOOD[:2],
    "no_rows.npy": GOOD[:0],
    "no_columns.npy": GOOD[:, :0],
    "number.npy": np.array(3.0),
    "row.npy": GOOD[0],
    "five.npy": GOOD.reshape(40, 1, 1, 1, 6),
    "constant.npy": np.full((300, 4), 0.5),
    "alike.npy": np.full((300, 4), 0.5) + 1e-30 * RNG.normal(size=(300, 4)),
    "faint.npy": 1e-25 * GOOD,
    "nan.npy": with_one(GOOD, np.nan),
    "inf.npy": with_one(GOOD, -np.inf),
    "huge.npy": with_one(GOOD, 1e39),
    "large.npy": with_one(GOOD, 3e38),
    "big.npy": GOOD * 1e12,
    "below.npy": GOOD - 1,
    "complex.npy": GOOD.astype(complex),
    "words.npy": GOOD.astype(str),
    "bytes.npy": GOOD.astype("S8"),
    "dates.npy": np.zeros((40, 6), "M8[s]"),
    "spans.npy": np.zeros((40, 6), "m8[s]"),
    "record.npy": np.zeros(40, [("a", "f4"), ("b", "i4")]),
    "void.npy": np.zeros((40, 6), "V4"),
    "objects.npy": np.array([[1, 2], [None, 3]], object),
    "bomb_inside.npy": np.array([[Bomb(), Bomb()]], object),
    "images.npy": IMAGES,
    "no_height.npy": IMAGES[:, :0],
    "no_width.npy": IMAGES[:, :, :0],
    "no_images.npy": IMAGES[:0],
    "small_images.npy": IMAGES[:, :12, :12],
    "grey_images.npy": np.full((2, 30, 30), 0.3),
    "colour_images.npy": RNG.normal(size=(2, 30, 30, 3)),
    "nan_images.npy": with_one(IMAGES, np.nan),
}
CONTENTS = {
    "empty.npy": b"",
    "text.npy": b"hello",
    "table.npy": b"1,2\n3,4\n",
    "picture.npy": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "pickle.npy": pickle.dumps(GOOD),
    "bomb.npy": pickle.dumps(Bomb()),
    "bomb.npz": pickle.dumps(Bomb()),
    "magic.npy": npy(GOOD)[:6],
    "half_header.npy": npy(GOOD)[:40],
    "cut.npy": npy(GOOD)[:-5],
    "version.npy": b"\x93NUMPY\x09\x00" + npy(GOOD)[8:],
    "code.npy": headed(f"__import__('os').mkdir('{MARKER}')"),
    "deep.npy": headed("-" * 9000 + "1"),
    "long_header.npy": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{}",
    "terabytes.npy": headed(described((10**6, 10**6))),
    "exabytes.npy": headed(described((10**11, 10**12))),
    "negative.npy": headed(described((-4, 6))),
    "twice_negative.npy": headed(described((-4, -6))),
    "true_shape.npy": headed(described((True, 6))),
    "word_shape.npy": headed(described(("a", 6))),
    "no_type.npy": headed(described((4, 6), "zz")),
    "object_type.npy": headed(described((4, 6), "O")),
    "no_array.npz": zipped(),
    "readme.npz": zipped(("readme.txt", b"hello")),
    "two.npz": zipped(("a.npy", npy(GOOD)), ("b.npy", npy(GOOD))),
    "many.npz": zipped(*((f"a{i}.npy", b"") for i in range(50))),
    "escape.npz": zipped(("../../x.npy", npy(GOOD))),
    "absolute.npz": zipped(("/x.npy", npy(GOOD))),
    "backslash.npz": zipped(("..\\x.npy", npy(GOOD))),
    "bomb_inside.npz": zipped(("a.npy", npy(np.array([[Bomb()]], object)))),
    "terabytes.npz": zipped(("a.npy", headed(described((10**6, 10**6)), bytes(10**6)))),
    "cut.npz": zipped(("a.npy", npy(GOOD)))[:-30],
    "flipped.npz": STORED[:300] + bytes([STORED[300] ^ 255]) + STORED[301:],
    "method.npz": changed(STORED, local=8, entry=10, value=99),
    "encrypted.npz": changed(STORED, local=6, entry=8, value=1),
    "few_labels.npz": labelled(np.arange(3)),
    "negative_labels.npz": labelled(np.arange(40) - 3),
    "half_labels.npz": labelled(np.arange(40) + 0.5),
    "nan_labels.npz": labelled(np.full(40, np.nan)),
    "word_labels.npz": labelled(np.array(["a"] * 40)),
    "flat_labels.npz": labelled(GOOD),
    "bomb_labels.npz": labelled(np.array([Bomb()] * 40, object)),
    "no_json.json": b"{",
    "list.json": b"[1, 2]",
    "words.json": b'{"machine": "x", "rows": [{"shape": "abcd"}], "lbfgs": 3}',
    "deep.json": b"[" * 100_000,
    "latin.json": b"\xff\xfe",
    "pickle.json": pickle.dumps(Bomb()),
}
FOLDERS = ("folder.npy", "folder.npz", "folder.json")
FILES = (*ARRAYS, *CONTENTS, *FOLDERS)


def write(folder, name):
    """Write one of FILES; with .d behind its name it is alone in a folder of that name."""
    if name.endswith(".d"):
        (folder / name).mkdir()
        return write(folder / name, name.removesuffix(".d"))
    if name in FOLDERS:
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(CONTENTS[name] if name in CONTENTS else npy(ARRAYS[name]))


def stored(change):
    """A run whose results.nc was changed by f(file)."""

    def damage(run):
        with h5py.File(run / "results.nc", "a", libver="v110") as file:
            change(file)

    return damage


def add_without_checksums(run):
    with h5py.File(run / "results.nc", "a") as file:
        file["x"] = np.zeros(3)


def attribute(name, value):
    return stored(lambda file: file.attrs.__setitem__(name, value))


def settings(**values):
    """A run whose lanes are said to have other settings, by the coordinates of these."""

    def change(file):
        for name, value in values.items():
            file[name][...] = value

    return stored(change)


def config(**values):
    """A run that has some settings in its attribute config alone, as earlier versions wrote them."""

    def change(file):
        for name in values.keys() & file.keys():
            del file[name]
        del file.attrs["settings"]
        file.attrs["config"] = json.dumps(json.loads(file.attrs["config"]) | values)

    return stored(change)


def put(name, values, **attributes):
    def change(file):
        if name in file:
            del file[name]
        file[name] = values
        if attributes:
            file[name].attrs.update(attributes)

    return stored(change)


def made(name, shape, kind, **how):
    return stored(lambda file: file.create_dataset(name, shape, kind, **how))


def written(file, content):
    return lambda run: (run / file).write_bytes(content)


def cut(file, size):
    return lambda run: (run / file).write_bytes((run / file).read_bytes()[:size])


def tensors(change_header=lambda header: None, change_body=lambda body: body):
    """A run whose params.safetensors has another header, or other numbers."""

    def damage(run):
        path = run / "params.safetensors"
        content = path.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        change_header(header)
        words = json.dumps(header).encode()
        path.write_bytes(len(words).to_bytes(8, "little") + words + change_body(content[end:]))

    return damage


def tensor(name, **entry):
    return tensors(lambda header: header[name].update(entry))


def length(size):
    """A run whose params.safetensors says that its header is so long."""

    def damage(run):
        path = run / "params.safetensors"
        path.write_bytes(size.to_bytes(8, "little") + path.read_bytes()[8:])

    return damage
