"""Deep Image Prior: denoise one scan by fitting a network to it and stopping in time."""
