"""Files that describe themselves, and the folder of a run. Nothing here knows a model or a lane.

atomic        files that appear whole or not at all; the one line for an error of the file system
arrays        arrays that may be larger than memory
description   what a Dataset and its files say of themselves
results       a Dataset <-> results.nc (netcdf) and params.safetensors (tensors); format1 converts older runs
states        what lanes carried after their last step, to be trained on
checkpoints   a folder of arrays that is read only if it is what was saved
record        config.json, and the differences between two of them; provenance: when, where and from which source
version       of this package
plugin_list   the plug-ins that are loaded, and those that a run says it was made with
run_folder    a run's folder: started once, used by one process at a time, resumed until it is finished
run_list      the runs below a folder, and how those that were abandoned are removed
"""
