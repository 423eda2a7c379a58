"""Dictionaries as the files of other libraries, written and read.

saelens    the folders of SAELens 6: cfg.json and sae_weights.safetensors
torch      a state dict for a few lines of PyTorch
folding    a lane's normalisation, as part of its weights

Folders are read by sae_jax.sweeps.dictionaries, since lanes may start from them.
"""

from sae_jax.analysis.interop.saelens import load, save

__all__ = ["load", "save"]
