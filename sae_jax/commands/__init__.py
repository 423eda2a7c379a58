"""The command line, one file a command: sweep, train, evaluate; main is the console command sae-jax.

flags         options made from the settings' declarations, and one way to fail
session       what sweep and train share
terminal      lines and the progress bar
signals       Ctrl-C and machines that are taken away
cluster       joining other processes, and ending with them
environment   the cache of compiled programs, and files that flags name
"""
