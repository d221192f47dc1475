"""Train a network to find cells, from the centroids or masks of labelled volumes.

Settings are in `voxmill.config.training`. A module imports only from those above it in this list:

- `targets`: the values that the network learns. `sources`: volumes with their ground truth.
  `patches`: those drawn from them. `augmentation`: random changes of a patch.
- `validation`: F1 on held-out boxes, with the detector of the workflow. `mistakes`: what a
  half-trained network gets wrong. `checkpoints`: files from which a training resumes.
- `fine_tuning`: settings and weights of a model to start from.
- `trainer`: the state of a training and its steps. `loop`: all steps. `curves`: table and figure.
- `train_network`: the job; files in, model, card and curves out.
"""
