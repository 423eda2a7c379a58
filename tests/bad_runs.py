"""Bad input of the command that reads a finished run, as in `bad_inputs`; RUN is that run."""

import json

import h5py
import numpy as np

from tests.bad_files import (
    CONTENTS,
    add_without_checksums,
    attribute,
    config,
    cut,
    length,
    made,
    put,
    settings,
    stored,
    tensor,
    tensors,
    written,
)

BIG = "9" * 30
NC, PARAMS = "results.nc", "params.safetensors"
READABLE = "a finished run's files must be readable: "
AGAIN = "train it again"
NAMES = "results must name the settings they were trained with: got an attribute "
WEIGHT = "encoder_weight"
LABELS = ("long_name", "units", "kind")
OFFSETS = "invalid offset for tensor"

EVALUATE = [
    ([], "evaluate needs the folder of one finished run, before its flags: got none", "see runs/"),
    ([""], "evaluate needs the folder of one finished run, before its flags: got none", "see runs/"),
    (["--task", "probe"], "evaluate needs the folder of one finished run, before its flags: got none", "see runs/"),
    (["RUN", "RUN"], "evaluate needs the folder of one finished run, before its flags: got run run", "see runs/"),
    (["runn"], "a finished run's folder must hold results.nc: got runn", "did you mean run?"),
    (["elsewhere"], "a finished run's folder must hold results.nc: got elsewhere", "check the path"),
    (["n" * 300], "a finished run's folder must hold results.nc: got nnn", "check the path"),
    (["RUN/results.nc"], "a finished run's folder must hold results.nc: got run/results.nc", "check the path"),
    (["."], "a finished run's folder must hold results.nc: got .", "check the path"),
    (["text.npy"], "a finished run's folder must hold results.nc: got text.npy", "check the path"),
    (["RUN", "--task", ""], "inpainting, retrieval, stacked: got ''", "the default is probe"),
    (["RUN", "--task", "prob"], "inpainting, retrieval, stacked: got 'prob'", "did you mean probe?"),
    (["RUN", "--task", "probe", "anomaly"], "--task takes one value: got 2 (probe anomaly)", "leave one"),
    (
        ["RUN", "--task", "anomaly"],
        "needs a run that left a class out of its training: got classes ''",
        "--classes 0-8",
    ),
    (["RUN", "--noise", "nan"], "noise must be a finite number: got 'nan'", "the default is 0.05 0.1"),
    (["RUN", "--noise", "1e400"], "noise must be a finite number: got '1e400'", "the default is 0.05 0.1"),
    (["RUN", "--noise", ".1", "0"], "noise must be > 0: got 0", "the default is 0.05 0.1"),
    (["RUN", "--noise", ".1", ".1"], "noise must not name a level twice: got 0.1, 0.1", "leave one"),
    (["RUN", "--corruption", "masking", "--noise", "2"], "noise must be a probability, in [0, 1]", "use 1 or less"),
    (["RUN", "--corruption", "none"], "corruption must be one of gaussian, masking", "the default is gaussian"),
    (["RUN", "--devices", "99"], "devices must be at most what JAX has: got 99 of 4 cpu devices", "use 4 or less"),
    (["RUN", "--devices", "-1"], "devices must be >= 0: got -1", "the default is 0"),
    (["RUN", "--layers", "0"], "layers must be >= 1: got 0", "the default is 200"),
    (["RUN", "--layers", "5", "x"], "layers must be a whole number: got 'x'", "the default is 200"),
    (["RUN", "--task", "stacked", "--layers", "9" * 9], "layers must fit in memory: got 999999999", "use fewer units"),
    (["RUN", "--iterations", BIG], f"iterations must be at most 2147483647: got {BIG}", "the default is 200"),
    (["RUN", "--neighbours", "0"], "neighbours must be >= 1: got 0", "the default is 10"),
    (["RUN", "--rounds", "1.5"], "rounds must be a whole number: got '1.5'", "the default is 10"),
    (["RUN", "--hole", "1"], "hole must be in (0, 1): got 1", "the default is 0.4"),
    (["RUN", "--decay", "-1"], "decay must be >= 0: got -1", "the default is 0.0001"),
    (["RUN", "--decay", "\u0661"], "decay must be a finite number: got '\u0661'", "the default is 0.0001"),
    (["RUN", "--tyro-write-completion", "bash", "x"], "unknown flag --tyro-write-completion", "known: --corruption"),
    (["RUN", "--rho", ".1"], "unknown flag --rho", "did you mean --hole?"),
]


def without(name):
    return stored(lambda file: file.__delitem__(name))


def labelled_as(name, **attributes):
    """A run whose variable has other attributes; None takes one away."""

    def change(file):
        for key, value in attributes.items():
            del file[name].attrs[key]
            if value is not None:
                file[name].attrs[key] = value

    return stored(change)


def put_alike(name, value):
    """A run whose variable of the same dimensions and attributes is filled with a value of another kind."""

    def change(file):
        before = file[name]
        scales, attributes = [dim[0] for dim in before.dims], {key: before.attrs[key] for key in LABELS}
        shape = before.shape
        del file[name]
        file[name] = np.full(shape, value)
        for dim, scale in zip(file[name].dims, scales, strict=True):
            dim.attach_scale(scale)
        file[name].attrs.update(attributes)

    return stored(change)


def rename(old, new):
    """Another name for a tensor, in the header and in its description."""

    def change(header):
        header[new] = header.pop(old)
        header["__metadata__"][new] = header["__metadata__"].pop(old)

    return change


def declared(text):
    """A run whose encoder's weight is described by another text."""
    return tensors(lambda header: header["__metadata__"].update({WEIGHT: text}))


def dims_of(dims):
    """A run whose encoder's weight is said to be over other dimensions."""
    return declared(json.dumps({"dims": dims, "long_name": "x", "units": "1"}))


# By what was done to a run: how, what is said, the fix.
DAMAGES = {
    "results are a folder": (
        lambda run: ((run / NC).unlink(), (run / NC).mkdir()),
        "must hold results.nc",
        "check the",
    ),
    "no parameters": (lambda run: (run / PARAMS).unlink(), "must hold params.safetensors: got run", "check the path"),
    "empty results": (written(NC, b""), READABLE, AGAIN),
    "results of words": (written(NC, b"hello"), READABLE, AGAIN),
    "results of an older netCDF": (written(NC, b"CDF\x01" + bytes(100)), READABLE, AGAIN),
    "pickled results": (written(NC, CONTENTS["bomb.npy"]), READABLE, AGAIN),
    "results cut short": (cut(NC, 3000), READABLE + "run: got Unable", AGAIN),
    "no checksums": (add_without_checksums, "/x without checksums", AGAIN),
    "another format": (
        attribute("format", 3),
        "must be of format 2 or an earlier one: got 3",
        "use the version of sae_jax that wrote them",
    ),
    "a format of words": (attribute("format", "new"), "got format 'new', which is no number of a format", AGAIN),
    "no axes": (
        stored(lambda file: file.attrs.__delitem__("axes")),
        "an attribute axes that is no list of settings",
        AGAIN,
    ),
    "axes that end": (attribute("axes", "["), READABLE, AGAIN),
    "axes without end": (attribute("axes", "[" * 50_000), READABLE, AGAIN),
    "axes of numbers": (attribute("axes", "[1]"), "an attribute axes that is no list of settings", AGAIN),
    "an axis twice": (attribute("axes", '["rho", "rho"]'), "an attribute axes that is no list of settings", AGAIN),
    "an unknown axis": (attribute("axes", '["rh0"]'), "got no coordinate rh0", AGAIN),
    "fewer axes": (attribute("axes", "[]"), "over rho, seed, step, not over seed first", AGAIN),
    "no coordinate": (without("seed"), READABLE, AGAIN),
    "no divergence": (
        without("diverged_at"),
        "results must hold diverged_at over rho, seed: got none",
        "train them again",
    ),
    "no kind": (labelled_as("diverged_at", kind=None), "diverged_at without an attribute kind", AGAIN),
    "a kind that is a number": (labelled_as("diverged_at", kind=3), "diverged_at without an attribute kind", AGAIN),
    "words for numbers": (put_alike("diverged_at", b"a"), "diverged_at of |S1, which are no numbers", AGAIN),
    "one lane's numbers": (
        put("diverged_at", np.int32(3), long_name="x", units="1", kind="status"),
        "results must hold diverged_at over rho, seed: got a single number",
        "train them again",
    ),
    "a curve without steps": (labelled_as("diverged_at", kind="curve"), "a curve, over rho, seed without step", AGAIN),
    "a parameter twice": (
        put(WEIGHT, np.int32(3), long_name="x", units="1", kind="task"),
        f"{WEIGHT} in both results.nc and params.safetensors",
        AGAIN,
    ),
    "a group": (stored(lambda file: file.create_group("x/y")), "x is no variable", AGAIN),
    "a link within": (put("x", h5py.SoftLink("/rho")), "x points to another place", AGAIN),
    "a link to a file": (put("x", h5py.ExternalLink("/etc/passwd", "/")), "x points to another place", AGAIN),
    "numbers of a file": (made("x", (9,), "u1", external=[("/etc/passwd", 0, 9)]), "x is kept in another file", AGAIN),
    "terabytes": (made("x", (10**12,), "f8", chunks=(1000,)), "MiB of memory are free", "free memory, or raise"),
    "opaque": (made("x", (3,), "V4"), "x is of |V4, neither numbers nor text", AGAIN),
    "ragged": (made("x", (3,), h5py.vlen_dtype(np.int32)), "x is of object, neither numbers nor text", AGAIN),
    "references": (made("x", (3,), h5py.ref_dtype), "x is of object, neither numbers nor text", AGAIN),
    "a scale of words": (stored(lambda f: f["eval_l0"].attrs.__setitem__("scale_factor", "x")), READABLE, AGAIN),
    "no settings": (stored(lambda file: file.attrs.__delitem__("config")), NAMES + "config", "train them again"),
    "settings that end": (attribute("config", "{"), NAMES + "config", "train them again"),
    "settings without end": (attribute("config", "[" * 50_000), NAMES + "config", "train them again"),
    "settings as a number": (attribute("config", 3.0), NAMES + "config", "train them again"),
    "settings as a list": (attribute("config", "[1]"), NAMES + "config", "train them again"),
    "settings out of range": (settings(rho=[5, 0.1]), "rho must be in [1e-06, 0.999999]: got 5", "the default is 0.02"),
    "settings as a dict": (config(beta={"a": 1}), "beta must be a finite number: got {'a': 1}", "the default is 1"),
    "text as a list": (
        config(dataset=["digits", 3]),
        "dataset must be text: got ['digits', 3]",
        "the default is patches",
    ),
    "unknown settings": (config(rh0=1), "unknown setting rh0", "did you mean rho?"),
    "settings of another program": (settings(k=99), "k must be at most d_hidden: got 99 of 3", "use a smaller k"),
    "contradictory settings": (
        settings(reconstruction_loss="bernoulli", output="linear"),
        "reconstruction_loss bernoulli needs probabilities: got output linear",
        "use output sigmoid",
    ),
    "a value twice": (settings(rho=[0.1, 0.1]), "rho must not name a value twice: got 0.1, 0.1", "leave one"),
    "more units": (settings(d_hidden=10**9), "as many units as their own settings, 1000000000: got 3", "train them"),
    "other seeds": (settings(seed=[-1, 0]), "different whole numbers in [0, 2^32): got -1, 0", "use 0, 1, 2"),
    "other samples": (settings(samples=50), "digits must hold the samples that the run was trained on", "train again"),
    "samples of a pickle": (settings(dataset="array:bomb.npy"), "needs a file that exists", "check the path"),
    "samples of no file": (settings(dataset="array:no.npy"), "needs a file that exists: got no.npy", "check the path"),
    "summary of words": (
        settings(data_summary='["a"]'),
        "must hold the samples that the run was trained on",
        "train again",
    ),
    "ragged summary": (
        settings(data_summary="[1,[2]]"),
        "must hold the samples that the run was trained on",
        "train again",
    ),
    "no summary": (
        settings(data_summary="x"),
        "must hold the samples that the run was trained on",
        "train again",
    ),
    "no summary at all": (without("data_summary"), NAMES + "data", "train them again"),
    "empty parameters": (written(PARAMS, b""), READABLE, AGAIN),
    "pickled parameters": (written(PARAMS, CONTENTS["bomb.npy"]), READABLE, AGAIN),
    "parameters cut short": (cut(PARAMS, 900), "incomplete metadata", AGAIN),
    "gigantic header": (length(2**63 - 1), "header too large", AGAIN),
    "header beyond the end": (length(10**7), "invalid header length", AGAIN),
    "no header": (length(0), "invalid JSON in header", AGAIN),
    "offsets beyond the end": (tensor(WEIGHT, data_offsets=[0, 10**9]), "invalid shape", AGAIN),
    "overlapping offsets": (tensor("encoder_bias", data_offsets=[0, 48]), OFFSETS, AGAIN),
    "negative offsets": (tensor(WEIGHT, data_offsets=[-4, 48]), "invalid value: integer `-4`", AGAIN),
    "falling offsets": (tensor(WEIGHT, data_offsets=[48, 0]), OFFSETS, AGAIN),
    "a larger shape": (tensor(WEIGHT, shape=[2, 2, 64, 4]), "invalid shape", AGAIN),
    "a shape beyond all memory": (tensor(WEIGHT, shape=[2**40, 2**40, 64, 3]), "overflow computing buffer size", AGAIN),
    "a negative shape": (tensor(WEIGHT, shape=[-2, -2, 64, 3]), "invalid value: integer `-2`", AGAIN),
    "swapped axes": (tensor(WEIGHT, shape=[2, 2, 64, 3]), "conflicting sizes for dimension", AGAIN),
    "one axis": (tensor(WEIGHT, shape=[768]), READABLE, AGAIN),
    "another type": (tensor(WEIGHT, dtype="F64", shape=[384]), "encoder_weight must be F32, I32, BOOL: got F64", AGAIN),
    "an unknown type": (tensor(WEIGHT, dtype="O"), "unknown variant `O`", AGAIN),
    "a longer file": (tensors(change_body=lambda body: body + b"tail"), "file not fully covered", AGAIN),
    "another name": (
        tensors(lambda header: header.update({"../x": header.pop(WEIGHT)})),
        "got '../x', which params.safetensors does not describe",
        AGAIN,
    ),
    "no parameter of the model": (
        tensors(rename(WEIGHT, "weight")),
        "results must hold encoder_weight over rho, seed, unit, input: got none",
        "train them again",
    ),
    "no description": (tensors(lambda header: header.pop("__metadata__")), "does not describe", AGAIN),
    "a description of another kind": (declared("[3]"), READABLE, AGAIN),
    "a description that ends": (declared("{"), READABLE, AGAIN),
    "a description without end": (declared('{"dims":' * 50_000), READABLE, AGAIN),
    "a description without dimensions": (declared('{"long_name": "x", "units": "1"}'), "got 'dims'", AGAIN),
    "dimensions of numbers": (dims_of([1, 2, 3, 4]), "encoder_weight over [1, 2, 3, 4], which are no", AGAIN),
    "a dimension twice": (dims_of(["rho", "seed", "unit", "unit"]), "'unit'], which are no dimensions", AGAIN),
    "fewer dimensions": (dims_of(["rho", "seed"]), READABLE, AGAIN),
    "swapped lanes": (dims_of(["seed", "rho", "unit", "input"]), "not over rho, seed first", AGAIN),
    "a dimension without a coordinate": (
        dims_of(["rho", "seed", "unit", "inputs"]),
        "over inputs, which has no coordinate",
        AGAIN,
    ),
    "a label that is a number": (
        declared('{"dims": ["rho", "seed", "unit", "input"], "long_name": 3, "units": "1"}'),
        "encoder_weight without an attribute long_name",
        AGAIN,
    ),
    "deep metadata": (tensors(lambda h: h.update(__metadata__={"a": {"b": "c"}})), "invalid type: map", AGAIN),
    "parameters of NaN": (
        tensors(change_body=lambda body: np.full(len(body) // 4, np.nan, "<f4").tobytes()),
        "parameters of lanes that did not diverge must be finite: got NaN",
        "train them again",
    ),
    "figures elsewhere": (
        lambda run: (run / "figures").symlink_to(".."),
        "it is a link to another place",
        "rename what is there",
    ),
    "figures a file": (written("figures", b""), "the folder of figures must be writable: got run/figures", "rename"),
}
