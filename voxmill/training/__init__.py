"""Training of a network from centroids.

`settings`: what is chosen. `sources`: volumes, their truth, where patches may lie. `targets`:
what the network should answer. `augmentation`: random changes of a patch. `validation`: F1 through
the workflow's own detector. `checkpoints`: whole files to resume from. `trainer`: the
state and its steps. `loop`: the training. `job`: files in, model, card and curves out.
"""
