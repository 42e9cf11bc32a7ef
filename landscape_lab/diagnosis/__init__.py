"""What the measures say about a run, in plain sentences with numbers, and no verdict where the data carry none."""

from landscape_lab.diagnosis.collect import collect, diagnose, diagnosis_cost
from landscape_lab.diagnosis.findings import Curves, Diagnosis, Evidence, Finding
from landscape_lab.diagnosis.verdicts import judge

__all__ = ["Curves", "Diagnosis", "Evidence", "Finding", "collect", "diagnose", "diagnosis_cost", "judge"]
