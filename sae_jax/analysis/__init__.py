"""What trained lanes say.

cells         walking through a Dataset cell by cell
report        the table of a sweep, and warnings
figures       curves, heatmaps, mean activation, reconstruction against sparsity; filters: decoder rows
lanes         trained lanes, ready to be put to use
tasks         one file a task
probes        softmax layers on codes; stacked: further layers; gabor: fits of Gabor functions
"""
