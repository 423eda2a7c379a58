"""The life of one lane.

config        settings of a training, and of a lane: its model with these
step          TrainState, train_step
optimizers    Adam, SGD and L-BFGS by name, and the learning rate; lbfgs holds the line search
lane          any number of steps, the points that a lane logs, fit
stopping      early stopping on held-out data
evaluation    measures on held-out data, each declared once
"""
