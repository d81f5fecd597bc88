"""Learning a prompt: recipes, the tuning loop and the doctor."""

from spoton.tuning.diagnosis import Diagnosis as Diagnosis
from spoton.tuning.diagnosis import diagnose as diagnose
from spoton.tuning.full_model.recipe import ModelRecipe as ModelRecipe
from spoton.tuning.full_model.tune import TunedModel as TunedModel
from spoton.tuning.full_model.tune import tune_model as tune_model
from spoton.tuning.halving import Halving as Halving
from spoton.tuning.prompt_run import Job as Job
from spoton.tuning.prompt_run import Tuned as Tuned
from spoton.tuning.recipe import PRESETS as PRESETS
from spoton.tuning.recipe import Recipe as Recipe
from spoton.tuning.tune import tune as tune
from spoton.tuning.tune import tune_together as tune_together
