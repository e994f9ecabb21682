"""Weights by their names in a Hugging Face folder."""

import numpy as np
from numpy.typing import NDArray

Weights = dict[str, NDArray[np.float32]]

EMBEDDING = "model.embed_tokens.weight"
