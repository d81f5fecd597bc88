"""How a prompt is learned: recipes, the tuning loop, evaluation, prediction and the doctor."""

from spoton.tuning.evaluation import Evaluation as Evaluation
from spoton.tuning.evaluation import evaluate as evaluate
from spoton.tuning.events import Progress as Progress
from spoton.tuning.loop import Tuned as Tuned
from spoton.tuning.loop import tune as tune
from spoton.tuning.recipe import PRESETS as PRESETS
from spoton.tuning.recipe import Recipe as Recipe
