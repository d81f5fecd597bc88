"""Converts prompts between spoton's files and the formats of other systems."""

from spoton.exchange.foreign import ForeignPrompt as ForeignPrompt
from spoton.exchange.formats import Exported as Exported
from spoton.exchange.formats import export_prompts as export_prompts
from spoton.exchange.formats import read_foreign as read_foreign
from spoton.exchange.t5x import import_npy as import_npy
from spoton.exchange.t5x import load_t5x as load_t5x
