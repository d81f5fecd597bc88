"""SPoT's additions: the similarity of prompts, the choice of sources, and adaptation of a model to a task with them.

A prompt can also be converted to another model, as a start there.
"""

from spoton.transfer.adapt import Adapted as Adapted
from spoton.transfer.adapt import adapt as adapt
from spoton.transfer.arms import RANKS as RANKS
from spoton.transfer.combining.methods import METHODS as METHODS
from spoton.transfer.conversion import convert as convert
from spoton.transfer.ranking.similarity import retrieve as retrieve
from spoton.transfer.ranking.trial import trial as trial
from spoton.transfer.similarity import SIMILARITIES as SIMILARITIES
from spoton.transfer.similarity import similarity as similarity
from spoton.transfer.sources import Retrieved as Retrieved
from spoton.transfer.sources import sources_for as sources_for
