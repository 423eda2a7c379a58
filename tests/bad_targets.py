"""Targets that do not belong to samples or to a model, as in `bad_inputs`."""

BATCH = ["--batch-size", "9"]

TARGETS = [
    (
        ["--targets", "two.npy"],
        "targets must be beside array:FILE or activations:DIR: got two.npy beside patches",
        "leave targets out",
    ),
    (
        ["--dataset", "array:good.npy", "--model", "relu", "--targets", "none.npy"],
        "targets of array must be a file that exists: got none.npy",
        "use one with a row for each sample",
    ),
    (
        ["--dataset", "array:good.npy", "--model", "relu", "--targets", "two.npy"],
        "targets must have a row for each of the 40 samples, in their order: got 2 in two.npy",
        "write both in one pass over a model",
    ),
    (
        ["--dataset", "array:good.npy", "--model", "relu", "--targets", "nan.npy"],
        "nan.npy must be finite in single precision: got 1 NaN, infinite or huge values of 240",
        "drop those samples",
    ),
    (
        ["--dataset", "array:good.npy", "--targets", "good.npy"],
        "targets need a model that makes them of its inputs: got classic, which reconstructs these",
        "use relu, topk",
    ),
    (
        ["--dataset", "array:good.npy", "--model", "topk", "--targets", "good.npy", "--outputs", "5", *BATCH],
        "targets must have 5 numbers, as outputs says: got 6",
        "use others",
    ),
    (
        ["--dataset", "array:good.npy", "--model", "relu", "--outputs", "5", *BATCH],
        "a transcoder of 5 outputs needs targets: got samples alone",
        "a file beside array:FILE",
    ),
    (
        ["--dataset", "array:good.npy", "--model", "topk", "--skip", "True", *BATCH],
        "skip needs targets, to which it maps inputs: got True without",
        "add targets",
    ),
]
