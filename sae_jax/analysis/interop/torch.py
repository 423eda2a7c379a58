"""A lane as a state dict in safetensors, and the lines of PyTorch that encode and decode with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import numpy as safetensors

from sae_jax.analysis.interop.folding import architecture_of, units_encoded
from sae_jax.analysis.trained_lane import TrainedLane
from sae_jax.data.normalise import arrays_of, split_arrays
from sae_jax.storage.atomic import as_path, write_file, writing

CENTRED = "(x - p['decoder_bias']) @ p['encoder_weight'].T"
# Where the decoder's bias lies among other activations.
PLAIN, SKIPPED = "x @ p['encoder_weight'].T", "x @ p['skip_weight'].T"
ACTIVATIONS = {
    "sigmoid": "{}.sigmoid()",
    "tanh": "{}.tanh()",
    "relu": "{}.relu()",
    "capped_relu": "{}.clamp(0, 1)",
    "linear": "{}",
}
TOPK = "torch.zeros_like(z).scatter(1, (i := {strength}.topk({k}).indices), z.gather(1, i){rectified})"


def save(lane: TrainedLane, path: str | Path) -> str:
    """Write a lane's parameters, and its normalisation where it has one, into a safetensors file.

    Args:
        lane: what is written.
        path: of the file.

    Returns:
        Lines of Python that read the file, and define encode and decode on samples before normalisation, and
        reconstruct where something passes by the codes.

    Raises:
        UserError: the model is a record of one's own, or the file cannot be written.
    """
    path = as_path("path", path, "the path of a file", "use lane.safetensors")
    lines, content = loader(lane, path.name), weights(lane)
    with writing(path, "the file", "choose another"):
        write_file(path, content)
    return lines


def weights(lane: TrainedLane) -> bytes:
    """A safetensors file of a lane's parameters, and of its normalisation where it has one."""
    arrays = {name: np.ascontiguousarray(values, np.float32) for name, values in lane.params.items()}
    if not lane.normalisation.is_identity:
        widths = {"input": lane.d_in, "target": lane.d_out}
        split = split_arrays([lane.normalisation], [widths]) if lane.transcodes else None
        stored = split or arrays_of([lane.normalisation], lane.d_in)
        arrays |= {name: np.asarray(values[0], np.float32) for name, values in stored.items()}
    return bytes(safetensors.save(arrays))


def loader(lane: TrainedLane, file: str) -> str:
    """The lines of Python that encode and decode with what `save` writes.

    Args:
        lane: what is written.
        file: the file's name, as the lines are to open it.

    Raises:
        UserError: the model is a record of one's own.
    """
    name, s, normalised = architecture_of(lane), lane.settings.model, not lane.normalisation.is_identity
    output = ACTIVATIONS[s.output] if name == "classic" else "{}"
    skips = "skip_weight" in lane.params
    beside = " + skipped" if skips else ""
    decoded = output.format(f"(f @ p['decoder_weight'] + p['decoder_bias']{beside})")
    lines = ["import torch", "from safetensors.torch import load_file", "", f"p = load_file({file!r})", ""]
    if normalised:
        lines += [
            "def means(x):",
            "    return x.mean(1, keepdim=True) * p['input_subtract_sample_mean']",
            "",
            "def normalise(x):",
            "    y = (x - means(x) - p['input_centre']) / p['input_scale']",
            "    return y.clamp(-p['input_limit'], p['input_limit']) * p['input_gain'] + p['input_offset']",
            "",
        ]
    lines += ["def encode(x):", *(["    x = normalise(x)"] if normalised else [])]
    lines += [f"    {line}" for line in _encoder(name, s)]
    others = ", skipped=0" if skips else "" if lane.transcodes else ", means=0"
    lines += ["", f"def decode(f{others}):"]
    side = "target" if lane.transcodes else "input"
    if normalised:
        decoded = f"({decoded} - p['{side}_offset']) / p['{side}_gain'] * p['{side}_scale'] + p['{side}_centre']"
        decoded += "" if lane.transcodes else " + means"
    lines.append(f"    return {decoded}")
    if skips:
        seen = SKIPPED.replace("x", "normalise(x)", 1) if normalised else SKIPPED
        lines += ["", "def reconstruct(x):", f"    return decode(encode(x), {seen})"]
    return "\n".join(lines)


def _encoder(name: str, s: Any) -> list[str]:
    """The body of encode, which returns f."""
    product = PLAIN if getattr(s, "outputs", 0) else CENTRED
    if name == "classic":
        lines = ["z = x @ p['encoder_weight'].T + p['encoder_bias']"]
        codes = ACTIVATIONS[s.activation].format("z")
        if (k := units_encoded(s)) == s.d_hidden:
            return [*lines, f"return {codes}"]
        return [*lines, f"kept = z >= z.topk({k}).values[:, -1:]", f"return {codes} * kept"]
    if name == "matching_pursuit":
        return _greedy(s)
    if name == "gated":
        return [
            f"z = {product}",
            "magnitudes = (p['log_magnitude'].exp() * z + p['encoder_bias']).relu()",
            "return magnitudes * (z + p['gate_bias'] > 0)",
        ]
    lines = [f"z = {product} + p['encoder_bias']"]
    size = "z.abs()" if name == "abs_topk" else "z"
    strength = f"({size} * p['decoder_weight'].norm(dim=1))" if getattr(s, "rescale", False) else size
    rectified = "" if name == "abs_topk" else ".relu()"
    thresholded = f"z.relu() * ({strength} >= p['threshold'])"
    if name in ("topk", "abs_topk"):
        return [*lines, f"return {TOPK.format(strength=strength, k=units_encoded(s), rectified=rectified)}"]
    codes_of = {"relu": "z.relu()", "jumprelu": "z * (z > p['threshold'])"}
    return [*lines, f"return {codes_of.get(name, thresholded)}"]


def _greedy(s: Any) -> list[str]:
    threshold = 0.0 if s.residual_threshold is None else float(s.residual_threshold)
    lines = [
        "r, w = x - p['decoder_bias'], p['decoder_weight']",
        "f, left = r.new_zeros(len(r), len(w)), torch.ones(len(r), 1)",
        f"for _ in range({int(s.k)}):",
        "    a, i = (r @ w.T).max(1, keepdim=True)",
        "    a = a.relu() * left",
    ]
    if s.stop_at_repeat:
        lines.append("    left = left * (a > 0) * (f.gather(1, i) == 0)")
    lines += ["    f, r = f.scatter_add(1, i, a), r - a * w[i[:, 0]]"]
    if threshold:
        lines.append(f"    left = left * (r.norm(dim=1, keepdim=True) >= {threshold})")
    return [*lines, "return f"]
