"""Frozen models: loading a pretrained model and running prompts through it, exactly and fast."""

from spoton.models.bundled import ModelInfo as ModelInfo
from spoton.models.bundled import list_models as list_models
from spoton.models.bundled import pull_model as pull_model
from spoton.models.choose_engine import engine_for as engine_for
from spoton.models.engine import Batch as Batch
from spoton.models.engine import Engine as Engine
from spoton.models.frozen import FrozenModel as FrozenModel
from spoton.models.gguf_files import unpack_gguf as unpack_gguf
from spoton.models.loading import load_model as load_model
from spoton.models.loading import parameters_of as parameters_of
