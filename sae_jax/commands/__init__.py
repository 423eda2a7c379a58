"""The command line, one file a command; main is the console command sae-jax and lists them.

flags         options made from the settings' declarations, and one way to fail
finished      what the commands that read a run share
help          what --help prints
session       what sweep and train share; extending: a finished run as the beginning of a larger one
run_log       what a run prints and how it ends, into its folder; run_report: runs in words
signals       Ctrl-C and machines that are taken away
cluster       joining other processes, and ending with them
variables     those that JAX reads as it is imported
environment   the cache of compiled programs, and files that flags name
"""
