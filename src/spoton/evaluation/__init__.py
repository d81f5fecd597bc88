"""Quality of a prompt's answers: encoding of examples, scoring by rank or generation, predictions for new texts."""

from spoton.evaluation.form import form_for as form_for
from spoton.evaluation.form import form_of as form_of
from spoton.evaluation.predict import Prediction as Prediction
from spoton.evaluation.predict import predict as predict
from spoton.evaluation.score import Evaluation as Evaluation
from spoton.evaluation.score import evaluate as evaluate
