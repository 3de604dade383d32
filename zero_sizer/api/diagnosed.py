"""The diagnosis of a log as an object."""

from zero_sizer.advise.fixes import Fix
from zero_sizer.api.results import Printable
from zero_sizer.logs.symptom import Symptom
from zero_sizer.questions.diagnose import Cause, Diagnosis
from zero_sizer.report import diagnosis


class DiagnosisResult(Printable):
    """Memory failures of a log, and what to change.

    Attributes:
        cause: the failure that the others follow from; None where the log tells of none.
        symptoms: all of them, in the order of the log.
        causes: what may have made the job fail, the most likely first.
        fixes: changes with their new peaks; empty without a config and a model.
        predicted_bytes: for the device and phase of the failure; None without a prediction.
    """

    def __init__(self, found: Diagnosis) -> None:
        super().__init__(lambda: diagnosis.diagnosis_mapping(found), lambda: diagnosis.show(found))
        self.cause: Symptom | None = found.log.cause
        self.symptoms: tuple[Symptom, ...] = found.log.symptoms
        self.causes: tuple[Cause, ...] = found.causes
        self.fixes: tuple[Fix, ...] = found.fixes
        self.predicted_bytes: int | None = found.predicted
