"""Fixtures of reports: small real studies."""

from tests.study.small import make_study as make_study
from tests.study.small import tiny_model as tiny_model
