"""What trained lanes say.

cells         walking through a Dataset cell by cell, and what is said of several seeds; select: part of a run
summary       a row for every lane, and for every cell; formats: CSV, Markdown, LaTeX; report: the terminal's table
figures       the figures by name; lines, heatmaps, filters and cosines draw them, lines with other runs beside
channels      which axis is shown by what; style: how figures look
lanes         trained lanes, ready to be put to use; interop: as the files of other libraries, and read from them
options       the tasks by name, and their settings; tasks: one file a task
units         what a reader needs of every unit: unit_variables, top_samples; unit_page: the figure
probes        softmax layers on codes; stacked: further layers; gabor: fits of Gabor functions
"""
