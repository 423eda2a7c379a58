"""One step and fifty of every architecture against SAELens, from files that `python -m tests.parity` writes.

cases      what is compared: settings of the library and of sae_jax, side by side
saelens    runs the library; needs requirements-interop.txt, and neither JAX nor sae_jax
test_parity   compares; needs neither torch nor the library
"""
