"""Scoring of answers: subclass `Evaluation`, or compare the variants of a recipe with `bioforge compare`."""

from bioforge.evaluation.evaluation import Evaluation, Report, Scored

__all__ = ["Evaluation", "Report", "Scored"]
