"""Small packages that stand where packages with weights would be installed, as pip leaves them."""

import json

import h5py
import numpy as np
from safetensors.numpy import save_file

from sae_jax.data.layers import LAYERS


class FakePackage:
    """An installed package of the test's own, found before one of the same name; its files are named as they are made.

    Args:
        name: of the package.
        folder: an empty one, in which it is installed.
        monkeypatch: of the test.
    """

    def __init__(self, name, folder, monkeypatch):
        self.folder, self.about = folder, folder / f"{name.replace('-', '_')}-9.0.dist-info"
        self.about.mkdir()
        (self.about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.0\n")
        (self.about / "RECORD").write_text("")
        monkeypatch.syspath_prepend(folder)

    def file(self, name):
        """A new file of the package: where it is to be written."""
        with (self.about / "RECORD").open("a") as record:
            record.write(f"{name},,\n")
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def write_table(package, source, tokens, vectors):
    """Write the files of a table of `sae_jax.data.table.TABLES`: tokens, and the vector of each."""
    save_file({source.array: vectors}, package.file(source.vectors))
    # The order of the file says nothing of the rows.
    content = {"model": {"vocab": {token: row for row, token in reversed(list(enumerate(tokens)))}}}
    package.file(source.vocabulary).write_text(json.dumps(content), encoding="utf-8")


def write_vgg16(path, widths, rng):
    """Write convolutions of a network of VGG16's shape, and of other widths: one for each block; they are returned."""
    weights, inputs = [], 3
    with h5py.File(path, "w") as file:
        for layer in LAYERS:
            block, number = map(int, layer.removeprefix("conv").split("_"))
            place = f"block{block}/layers/conv2d{f'_{number - 1}' if number > 1 else ''}/vars"
            outputs = widths[block - 1]
            # As large as keeps what is seen from vanishing, or growing, from layer to layer.
            kernel = (rng.normal(size=(3, 3, inputs, outputs)) * np.sqrt(2 / (9 * inputs))).astype(np.float32)
            bias = rng.uniform(0, 0.2, size=outputs).astype(np.float32)
            file[f"{place}/0"], file[f"{place}/1"] = kernel, bias
            weights.append((kernel, bias))
            inputs = outputs
    return weights
