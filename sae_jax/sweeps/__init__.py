"""Many lanes as one program.

grid          which settings vary, and what that means for programs and lanes; checks refuse what cannot work
plan          how lanes are packed into blocks and chunks; footprint says how much room the run takes on the disk
devices       devices and the mesh over them; mapping runs a function of one lane on all of them
program       one compiled program and the memory that its lanes need
chunk         training a program chunk by chunk; program_lanes puts its lanes on the devices, pace says how far they
              go at a time, recovery what is saved and resumed
processes     many processes that train one sweep, phase by phase
observers     who watches; terminal shows how lanes stand, on a terminal, in a notebook, in a file, by streams that
              never fail, trackers send their curves elsewhere
dataset       the arrays of all lanes as one labelled Dataset; lane_warnings says which of them went wrong,
              keep whose parameters are left out, causes why some learned nothing, truth and consistency what they
              are compared with
reading       that Dataset back to its grid
split         which lanes are trained, and which are equal to others or known from an earlier sweep
origin        the finished sweep whose lanes others start from; start gives each of them its state
study         settings and samples, checked and planned; sweep is the way from there to that Dataset
extend, merge   a sweep made larger; several as one

A sweep passes through a dozen types, in this order: Engine and Grid, what was asked for; Plan, Split, Point, Program
and Study, what is to be done (beside Earlier, or Origin and Start, where it goes on from another sweep); Lanes, Chunk
and Compiled, what is on the devices; Recovery with Position and NextCall, what is saved; Frame, what is being filled.
"""
