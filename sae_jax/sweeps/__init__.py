"""Many lanes as one program.

grid          which settings vary, and what that means for programs and lanes; checks refuse what cannot work
plan          how lanes are packed into blocks and chunks; footprint says how much room the run takes on the disk
devices       devices and the mesh over them; mapping runs a function of one lane on all of them
program       one program: its compiled functions and the memory that its lanes need
chunks        training a program chunk by chunk; chunk trains one, program_lanes puts its lanes on the devices, pace
              says how far they go at a time, recovery what is saved and resumed
processes     many processes that train one sweep, phase by phase
observers     who watches; terminal shows how lanes stand, on a terminal, in a notebook, in a file, by streams that
              never fail, trackers send their curves elsewhere
dataset       the arrays of all lanes as one labelled Dataset; lane_warnings says which of them went wrong,
              keep whose parameters are left out, causes why some learned nothing, truth and consistency what they
              are compared with
reading       that Dataset back to its grid
split         which lanes are trained, and which are equal to others or known from an earlier sweep
origin        the finished sweep whose lanes others start from; start gives each of them its state, dictionaries reads
              those of others
study         a sweep that is checked and planned; prepare leads to it from settings and samples, sweep from there to
              that Dataset
extend, merge   a sweep made larger; several as one

A sweep passes through at most a dozen types, in this order: Engine and Grid, what was asked for; Earlier, a finished
sweep that it goes on from; Point, Plan, Program and Study, what is to be done; Lanes and Chunk, what is on the devices;
Recovery and the storage's Position, what is saved; Variable, what the Dataset says of an array. Each is a value that is
never changed. What changes is in the hands of what changes it: arrays that are filled, lanes in training, and in a
Recovery the thread that writes files, with the writes that are under way.

Beside that way: Observer, who receives Progress and Points, and of that kind Observers, Terminal, Notebook and Status,
with _Words, Unfailing and Nowhere for what they print, and Tracker with a Writer for TensorBoard, WeightsAndBiases or
Trackio; Dictionary, one of others, read from its folder; Footprint, the room on the disk; Part, a sweep to be merged;
_ChunkTraining, a Chunk whose lanes are in training; Interrupted and Refused, how a training ends early.
"""
