"""Every public function with every kind of wrong value in each of its arguments, in a process without test hooks.

Run as a program, it prints what each call ended in: tests annotate more strictly than users are.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np

import sae_jax
from tests.wrong_values import ANY_AXES, TABLE, VALUES

RUN = Path(__file__).parent / "storage" / "runs" / "format1"


def cases():
    """By function: (it, arguments that it takes, {argument: (what messages may call it, values that it takes)})."""
    settings = sae_jax.lane_settings(d_hidden=2, batch_size=4, steps=1)
    noisy = sae_jax.lane_settings(d_hidden=2, corruption="masking", noise=0.5)
    key = jax.random.key(0)
    state = sae_jax.init_state(key, settings, 3)
    codes, dataset = TABLE[:, :2], sae_jax.results.load(RUN)
    run = sae_jax.open(RUN)
    lane = run.pareto()[0]
    model, of_lane = ("model", {"nothing"}), ("settings", set())
    path = {"text", "empty text"}
    text = path | {"text with NUL"}
    number = {"whole number", "number in an array"}
    sweep = {
        "data": ("data|samples|batch 0", {"another width"}),
        "model": ("model", set()),
        "seeds": ("seeds", {"whole number"}),
        "zip": ("zip", {"empty list", "empty array"}),
        "devices": ("devices", {"whole number", "number in an array"}),
        "data_parallel": ("data_parallel|devices", set()),
        "unit_parallel": ("unit_parallel|devices", set()),
        "lanes_per_chunk": ("lanes_per_chunk", {"whole number", "number in an array"}),
        "cells_per_block": ("cells_per_block", {"whole number", "number in an array"}),
        "blocks": ("blocks", set()),
        "observers": ("observers", {"empty list"}),
        "progress": ("progress", {"nothing", "truth"}),
        "start_from": ("start_from|run|dataset", {"nothing"}),
        "targets": ("targets", {"nothing"}),
        "rho": ("rho", set()),
        "nonsense": ("nonsense", None),
    }
    real = {*number, "negative number", "fraction", "nan", *ANY_AXES}
    return {
        "sweep": (sae_jax.sweep, {"data": TABLE, "steps": 1, "batch_size": 4, "progress": False}, sweep),
        "extend": (
            sae_jax.extend,
            {"dataset": dataset},
            {
                "dataset": ("dataset", set()),
                "data": ("data|samples|batch 0", {"nothing", "another width"}),
                "model": model,
                "seeds": ("seeds", {"nothing", "whole number"}),
                "zip": ("zip", {"nothing", "empty list", "empty array"}),
                "observers": ("observers", {"empty list"}),
                "rho": ("rho", set()),
                "nonsense": ("nonsense", None),
            },
        ),
        "merge": (
            lambda first, model=None, names=None: sae_jax.merge(first, model=model, names=names),
            {"first": dataset},
            {"first": ("dataset", set()), "model": model, "names": ("names", {"nothing", "list of texts"})},
        ),
        "lane_settings": (
            sae_jax.lane_settings,
            {},
            {"model": ("model", set()), "rho": ("rho", set()), "nonsense": ("nonsense", None)},
        ),
        "as_data": (
            sae_jax.as_data,
            {"samples": TABLE},
            {
                "samples": ("samples", {"another width"}),
                "config": ("config", set()),
                "name": ("name", text),
                "labels": ("labels", {"nothing"}),
                "targets": ("targets", {"nothing", "another width"}),
                "normalisation": ("normalisation", {"nothing"}),
            },
        ),
        "as_stream": (
            sae_jax.as_stream,
            {"source": lambda step: TABLE},
            {
                "source": ("source|batch 0", set()),
                "heldout": ("held-out", {"nothing", "another width"}),
                "config": ("config", set()),
                "normalisation": ("normalisation", {"nothing"}),
            },
        ),
        "load": (
            sae_jax.load,
            {"config": sae_jax.DataConfig(dataset="digits")},
            {"config": ("config", set()), "normalisation": ("normalisation", {"nothing"})},
        ),
        "open": (sae_jax.open, {"run": dataset}, {"run": ("run|dataset|folder", set()), "model": model}),
        "load_lane": (sae_jax.load_lane, {"path": "nowhere"}, {"path": ("path|nonsense|", set()), "model": model}),
        "batch_indices": (
            sae_jax.batch_indices,
            {"key": key, "step": 0, "samples": 9, "batch_size": 3},
            {
                "key": ("key", {"key"}),
                "step": ("step", number),
                "samples": ("samples", {"whole number"}),
                "batch_size": ("batch_size", {"whole number"}),
            },
        ),
        "keys_of": (sae_jax.keys_of, {}, {"key": ("key", {"key"})}),
        "init_state": (
            sae_jax.init_state,
            {"key": key, "settings": settings, "d_in": 3},
            {
                "key": ("key", {"key"}),
                "settings": of_lane,
                "d_in": ("d_in", {"whole number"}),
                "statistics": ("statistics", {"nothing", "dict", "dataset"}),
            },
        ),
        "train_step": (
            sae_jax.train_step,
            {"settings": noisy, "state": state, "batch": TABLE, "noise_key": key},
            {
                "settings": of_lane,
                "state": ("state", set()),
                "batch": ("samples", {"empty array"}),
                "axis_name": ("axis", {"nothing"}),
                "noise_key": ("noise_key", {"key"}),
            },
        ),
        "encode": (
            sae_jax.encode,
            {"params": state.params, "x": TABLE, "settings": settings},
            {"params": ("params", set()), "x": ("samples", {"empty array"}), "settings": of_lane},
        ),
        "decode": (
            sae_jax.decode,
            {"params": state.params, "codes": codes, "settings": settings},
            {"params": ("params", set()), "codes": ("codes", set()), "settings": of_lane},
        ),
        "evaluate": (
            sae_jax.evaluate,
            {"params": state.params, "x": TABLE, "settings": settings},
            {"params": ("params", set()), "x": ("samples", {"empty array"}), "settings": of_lane},
        ),
        "fit": (
            sae_jax.fit,
            {"settings": settings, "train": TABLE, "heldout": TABLE, "key": key},
            {
                "settings": of_lane,
                "train": ("train", set()),
                "heldout": ("heldout", set()),
                "key": ("key", {"key"}),
            },
        ),
        "kl_divergence": (
            sae_jax.kl_divergence,
            {"rho": 0.1, "mean_activation": TABLE[0]},
            {"rho": ("rho", set()), "mean_activation": ("mean_activation", real)},
        ),
        "kl_penalty": (
            sae_jax.kl_penalty,
            {"activity": TABLE, "mean_activation": TABLE[0], "rho": 0.1, "beta": 1.0},
            {
                "activity": ("activity", {"empty array"}),
                "mean_activation": ("mean_activation", set()),
                "rho": ("rho", set()),
                "beta": ("beta", {*number, "fraction"}),
            },
        ),
        "results.load": (sae_jax.results.load, {}, {"folder": ("folder", set())}),
        "results.save": (
            sae_jax.results.save,
            {"dataset": dataset, "folder": "/proc/nowhere"},
            {"dataset": ("dataset|axes", set()), "folder": ("folder", path)},
        ),
        "tasks.apply": (
            sae_jax.tasks.apply,
            {"task": "denoising", "dataset": dataset},
            {
                "task": ("task", set()),
                "dataset": ("dataset", set()),
                "options": ("options", set()),
                "data": ("data", {"nothing"}),
                "devices": ("devices", {"whole number"}),
                "model": model,
            },
        ),
        "plugins.load": (sae_jax.plugins.load, {}, {"plugin": ("plug-?in", {"module"})}),
        "plugins.unload": (sae_jax.plugins.unload, {}, {"plugin": ("plugin", set())}),
        "DataConfig": (
            sae_jax.DataConfig,
            {},
            {"heldout": ("heldout", set()), "samples": ("samples", {"whole number", "number in an array"})},
        ),
        "Run.lane": (run.lane, {}, {"seed": ("seed", set()), "rho": ("rho", set()), "nonsense": ("nonsense", None)}),
        "Run.best": (run.best, {}, {"measure": ("measure", set()), "at": (r"\bat\b|measure", {"nothing"})}),
        "Run.pareto": (run.pareto, {}, {"sparsity": ("measure", set()), "quality": ("measure", set())}),
        "Run.data_config": (run.data_config, {"lane": lane}, {"lane": ("lane", set()), "nonsense": ("nonsense", None)}),
        "units_of": (
            sae_jax.units_of,
            {"lane": lane, "samples": np.ones((2, 64)), "names": ["a", "b"], "others": {1: lane}},
            {
                "lane": ("lane", set()),
                "samples": ("samples", set()),
                "names": ("names", {"nothing", "list of texts"}),
                "others": ("others", {"nothing"}),
                "options": ("options", set()),
            },
        ),
        "interop.save": (
            sae_jax.interop.save,
            {"lane": lane, "path": "/proc/nowhere"},
            {"lane": ("lane", set()), "path": ("path", path)},
        ),
        "interop.load": (sae_jax.interop.load, {}, {"path": ("path|folder", {"empty text"})}),
        "figures.save_all": (
            sae_jax.figures.save_all,
            {"dataset": dataset, "folder": "/proc/nowhere"},
            {"dataset": ("dataset", set()), "folder": ("folder", path)},
        ),
        "figures.usual_figures": (sae_jax.figures.usual_figures, {}, {"dataset": ("dataset", {"dataset"})}),
        "figures.check_measures": (
            sae_jax.figures.check_measures,
            {"dataset": dataset, "names": ["curves"], "measures": ["loss"]},
            {
                "dataset": ("dataset", {"dataset"}),
                "names": ("names|figure", {"empty list"}),
                "measures": ("measure", {"empty list"}),
            },
        ),
        "figures.drawn": (
            lambda **given: list(sae_jax.figures.drawn(dataset, **{"names": ["curves"]} | given)),
            {},
            {"names": ("names|figure", {"empty list"}), "style": ("style", set())},
        ),
        "TrainedLane.encode": (lane.encode, {}, {"x": ("samples", set())}),
        "TrainedLane.decode": (lane.decode, {}, {"codes": ("codes", set())}),
        "TrainedLane.reconstruct": (lane.reconstruct, {}, {"x": ("samples", set())}),
        "TrainedLane.save": (lane.save, {}, {"path": ("path", path)}),
        "page_of": (
            sae_jax.page_of,
            {"dataset": dataset},
            {"dataset": ("dataset", set()), "data": ("data", {"nothing"}), "name": ("name", text)},
        ),
    }


def main():
    """Print how every call ends: the names of its error's classes, and its message."""
    ends = []
    for function, (call, good, arguments) in cases().items():
        for argument, (noun, taken) in arguments.items():
            # An argument that there is none of is wrong whatever its value is.
            values = {"whole number": VALUES["whole number"]} if taken is None else VALUES
            for name, (value, shown) in values.items():
                if name in (taken or ()):
                    continue
                try:
                    call(**good | {argument: value})
                    classes, message = [], ""
                except Exception as error:
                    classes, message = [one.__name__ for one in type(error).__mro__], str(error)
                ends.append([function, argument, name, noun, shown if taken is not None else "", classes, message])
    json.dump(ends, sys.stdout)


if __name__ == "__main__":
    main()
