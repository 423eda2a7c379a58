"""Many lanes as one program.

grid          which settings vary, and what that means for programs and lanes
plan          how lanes are packed into blocks and chunks
devices       devices and the mesh over them; mapping runs a function of one lane on all of them
program       one compiled program and the memory that its lanes need
chunk         training a program chunk by chunk; pace says how far, recovery what is saved and resumed
processes     many processes that train one sweep, phase by phase
observers     who watches
dataset       the arrays of all lanes as one labelled Dataset
sweep         the way from settings and samples to that Dataset

A sweep passes through a dozen types, in this order: Engine and Grid, what was asked for; Plan, Program and Study, what
is to be done; Lanes, Chunk and Compiled, what is on the devices; Recovery with Position and NextCall, what is saved;
Frame, what is being filled.
"""
