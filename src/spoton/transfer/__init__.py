"""What SPoT adds: how alike prompts are, which of them to start from, and adapting a model to a task with them."""

from spoton.transfer.adapt import Adapted as Adapted
from spoton.transfer.adapt import adapt as adapt
from spoton.transfer.combine import METHODS as METHODS
from spoton.transfer.rank_sources import Retrieved as Retrieved
from spoton.transfer.rank_sources import retrieve as retrieve
from spoton.transfer.rank_sources import sources_for as sources_for
from spoton.transfer.similarity import METRICS as METRICS
from spoton.transfer.similarity import similarity as similarity
