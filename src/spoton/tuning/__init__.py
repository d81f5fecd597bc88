"""How a prompt is learned: recipes, the tuning loop, evaluation, prediction and the doctor."""

from spoton.tuning.curve import draw_curve as draw_curve
from spoton.tuning.diagnosis import Diagnosis as Diagnosis
from spoton.tuning.diagnosis import diagnose as diagnose
from spoton.tuning.evaluation import Evaluation as Evaluation
from spoton.tuning.evaluation import evaluate as evaluate
from spoton.tuning.events import Progress as Progress
from spoton.tuning.halving import Halving as Halving
from spoton.tuning.job import Job as Job
from spoton.tuning.job import Tuned as Tuned
from spoton.tuning.loop import tune as tune
from spoton.tuning.loop import tune_together as tune_together
from spoton.tuning.model_recipe import ModelRecipe as ModelRecipe
from spoton.tuning.model_tuning import TunedModel as TunedModel
from spoton.tuning.model_tuning import tune_model as tune_model
from spoton.tuning.predict import Prediction as Prediction
from spoton.tuning.predict import predict as predict
from spoton.tuning.recipe import PRESETS as PRESETS
from spoton.tuning.recipe import Recipe as Recipe
