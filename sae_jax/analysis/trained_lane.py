"""One trained autoencoder with all that new samples need: parameters, settings, normalisation."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from safetensors import numpy as safetensors

from sae_jax.data.checks import check_fits
from sae_jax.data.normalise import STORED, Normalisation, arrays_of, from_arrays
from sae_jax.models import Model, model_of
from sae_jax.settings import UserError, as_json
from sae_jax.storage import plugin_list
from sae_jax.storage.atomic import as_path, mend_unread, reason_of, write_file, writing
from sae_jax.storage.tensors import open_tensors
from sae_jax.training import evaluation
from sae_jax.training.config import LaneSettings, lane_settings
from sae_jax.training.shapes import check_codes, check_samples, width_of

# Memory of the rows that are worked on at once.
PIECE_BYTES = 2**26
METADATA = "sae_jax"

_encode = jax.jit(evaluation.encode)
_decode = jax.jit(evaluation.decode)
_reconstruct = jax.jit(evaluation.reconstruct)


@dataclasses.dataclass(frozen=True, repr=False)
class TrainedLane:
    """One trained autoencoder.

    Attributes:
        params: its parameters by name, float32 arrays.
        settings: all settings of its model and its training; swept ones are numbers.
        normalisation: what is done to samples before they are encoded, and undone in reconstructions; a transcoder's
            is of rows [x | y], d_in + d_out wide.
        point: its place in the sweep: the value on every axis, and the seed.
        diverged_at, stopped_at: step at which it turned non-finite, or stopped early; -1 where it did not.
    """

    params: dict[str, np.ndarray]
    settings: LaneSettings
    normalisation: Normalisation
    point: Mapping[str, Any]
    diverged_at: int = -1
    stopped_at: int = -1

    @property
    def d_in(self) -> int:
        """Number of inputs."""
        return width_of("input", self.params, self.settings) or 0

    @property
    def d_out(self) -> int:
        """Numbers of a reconstruction: those of a sample, or of what a transcoder makes of one."""
        return width_of("target", self.params, self.settings) or self.d_in

    @property
    def transcodes(self) -> bool:
        """Whether it makes other activations of its inputs."""
        return bool(self.settings.architecture.outputs(self.settings.model))

    @property
    def of_inputs(self) -> Normalisation:
        """The normalisation of what is encoded."""
        return self.normalisation.part(slice(self.d_in)) if self.transcodes else self.normalisation

    @property
    def of_outputs(self) -> Normalisation:
        """The normalisation of what is reconstructed."""
        return self.normalisation.part(slice(self.d_in, None)) if self.transcodes else self.normalisation

    @property
    def d_hidden(self) -> int:
        """Number of hidden units."""
        return int(self.settings.model.d_hidden)

    @property
    def rows_at_once(self) -> int:
        """Number of samples that are worked on at once, so that memory is bounded."""
        return max(1, PIECE_BYTES // (4 * (max(self.d_in, self.d_out) + self.d_hidden)))

    def __repr__(self) -> str:
        place = [f"{name}={value}" for name, value in self.point.items()]
        ends = [f"diverged at step {self.diverged_at}"] if self.diverged_at >= 0 else []
        ends += [f"stopped early at step {self.stopped_at}"] if self.stopped_at >= 0 else []
        kind, end = ("transcoder", f"-{self.d_out}") if self.transcodes else ("autoencoder", "")
        about = f"{self.settings.architecture.name} {kind} {self.d_in}-{self.d_hidden}{end}"
        return f"<{': '.join(filter(None, [about, ', '.join(place + ends)]))}>"

    def encode(self, x: np.ndarray) -> Float[np.ndarray, "samples d_hidden"]:
        """Codes of samples as they were before normalisation, [samples, d_in], however many.

        Args:
            x: samples of any real dtype, such as a map of a file. They are worked on some at a time. A run of whitened
                patches takes patches of images that `sae_jax.data.patches.whiten` has whitened.

        Raises:
            UserError: they are of another rank, width or kind.
        """
        x = check_samples(x, self.params, self.settings)
        self._warn_of_divergence()
        codes = _room(len(x), self.d_hidden)
        for rows in self._pieces(len(x)):
            codes[rows] = self._in_full(_encode, self.of_inputs.apply(np.asarray(x[rows])))
        return codes

    def decode(self, codes: np.ndarray) -> Float[np.ndarray, "samples d_out"]:
        """Reconstruction from codes [samples, d_hidden], on the scale of samples before normalisation.

        Where normalisation subtracts each sample's own mean, codes do not hold it and it is missing here; `reconstruct`
        adds it, and what passes by the codes of a transcoder with a skip.

        Raises:
            UserError: the codes are of another rank, width or kind.
        """
        codes = check_codes(codes, self.params, self.settings)
        self._warn_of_divergence()
        x = _room(len(codes), self.d_out)
        for rows in self._pieces(len(codes)):
            x[rows] = self.of_outputs.undo(self._in_full(_decode, np.asarray(codes[rows], np.float32)))
        return x

    def reconstruct(self, x: np.ndarray) -> Float[np.ndarray, "samples d_out"]:
        """x_hat of samples [samples, d_in], both on the scale before normalisation; arguments as those of `encode`.

        Of a transcoder it is y_hat, [samples, d_out].
        """
        x = check_samples(x, self.params, self.settings)
        self._warn_of_divergence()
        result = _room(len(x), self.d_out)
        for rows in self._pieces(len(x)):
            part = np.asarray(x[rows])
            normalised = self.of_inputs.apply(part)
            rebuilt = self._in_full(_reconstruct, normalised, self._in_full(_encode, normalised))
            result[rows] = self.of_outputs.undo(rebuilt, self.of_outputs.means(part))
        return result

    def to_torch_layout(self) -> dict[str, np.ndarray]:
        """Parameters as the state dict of two torch.nn.Linear layers, encoder and decoder.

        They act on normalised samples: apply `normalisation` first. A torch.nn.Linear holds [outputs, inputs], so the
        decoder's weight is [d_out, d_hidden] there.

        Raises:
            UserError: the model is not an encoder and a decoder of one matrix each.
        """
        weights = {"encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias"}
        if set(self.params) != weights:
            raise UserError(
                f"torch.nn.Linear layers hold {', '.join(sorted(weights))}: got {', '.join(sorted(self.params))}; "
                "use params"
            )
        return {
            "encoder.weight": self.params["encoder_weight"],
            "encoder.bias": self.params["encoder_bias"],
            "decoder.weight": np.ascontiguousarray(self.params["decoder_weight"].T),
            "decoder.bias": self.params["decoder_bias"],
        }

    def save(self, path: str | Path) -> None:
        """Write everything into one safetensors file, which `load_lane` reads.

        Raises:
            UserError: the file cannot be written.
        """
        path = as_path("path", path, "the path of a file", "use lane.safetensors")
        width = self.normalisation.centre.size
        stored = {name: values[0] for name, values in arrays_of([self.normalisation], width).items()}
        declared = {**as_json(self.settings.model), **as_json(self.settings.training)}
        plugins = plugin_list.records(self.settings.architecture.Settings.PARTS)
        # What a term reads that is off is read by nobody.
        of_terms = {name: more for one in plugins for name, more in one["settings"].items() if declared[name] is None}
        idle = {setting for more in of_terms.values() for setting in more}
        about = {
            "model": self.settings.architecture.name,
            "settings": {
                name: _plain(value) for name, value in declared.items() if value is not None and name not in idle
            },
            "plugins": plugins,
            "point": {name: _plain(value) for name, value in self.point.items()},
            "diverged_at": self.diverged_at,
            "stopped_at": self.stopped_at,
        }
        arrays = {name: np.asarray(values, order="C") for name, values in (self.params | stored).items()}
        content = safetensors.save(arrays, metadata={METADATA: json.dumps(about)})
        with writing(path, "the file", "choose another"):
            write_file(path, content)

    def _warn_of_divergence(self) -> None:
        if self.diverged_at >= 0:
            warnings.warn(
                f"this lane turned non-finite at step {self.diverged_at} and holds its last finite parameters; "
                "choose another one",
                UserWarning,
                stacklevel=3,
            )

    def _pieces(self, number: int) -> list[slice]:
        step = self.rows_at_once
        return [slice(start, min(start + step, number)) for start in range(0, number, step)]

    def _in_full(self, function: Callable[..., Any], *parts: np.ndarray) -> np.ndarray:
        """A function of rows, compiled for one or two numbers of them whatever the last part's is."""
        number = len(parts[0])
        rows = min(self.rows_at_once, 1 << max(number - 1, 0).bit_length())
        padded = [np.zeros((rows, part.shape[1]), np.float32) for part in parts]
        for whole, part in zip(padded, parts, strict=True):
            whole[:number] = part
        return np.asarray(function(self.params, *padded, self.settings))[:number]


def load_lane(path: str | Path, model: Model | None = None) -> TrainedLane:
    """Read what `TrainedLane.save` wrote.

    Args:
        path: of the file.
        model: the record, where the model is none that sae_jax knows by name.

    Raises:
        UserError: there is no such file, or it is not what `save` writes.
    """
    named = as_path("path", path, "the path of a file", "use what TrainedLane.save wrote")
    model = model if model is None else model_of(model)
    try:
        with open_tensors(named) as file:
            about = json.loads((file.metadata() or {})[METADATA])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if model is None:
            plugins = plugin_list.valid(about.get("plugins"))
            off = [name for one in plugins for name in one["parts"].get("term", ()) if name not in about["settings"]]
            plugin_list.check_loaded(plugins, ("model", "term"), off)
        settings = lane_settings(model or about["model"], **about["settings"])
        stored = {name for name, _, _ in STORED.values()}
        params = {name: values for name, values in arrays.items() if name not in stored}
        width = sum(width_of(dim, params, settings) or 0 for dim in ("input", "target"))
        normalisation = from_arrays(arrays, width)
        if normalisation is None:
            raise ValueError("no normalisation")
        return TrainedLane(params, settings, normalisation, about["point"], about["diverged_at"], about["stopped_at"])
    except UserError:
        raise
    except Exception as error:  # What is no such file fails in as many ways as there are files.
        shown = str(path) or "''"
        fix = mend_unread(error, "use one that it wrote")
        raise UserError(f"{shown} must be a file that TrainedLane.save wrote: got {reason_of(error)}; {fix}") from None


def _room(samples: int, width: int) -> np.ndarray:
    """An array for so many numbers of every sample, where it fits in memory."""
    check_fits(samples, 4 * samples * width)
    return np.empty((samples, width), np.float32)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, (np.generic, np.ndarray, jax.Array)) else value
