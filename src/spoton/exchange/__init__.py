"""Who else reads prompts: bridges between spoton's files and the formats of other systems."""

from spoton.exchange.t5x import import_npy as import_npy
from spoton.exchange.t5x import load_t5x as load_t5x
