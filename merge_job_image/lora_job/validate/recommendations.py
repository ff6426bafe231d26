"""Advice: a pure function of findings; every line has a code, a severity, both languages and the number behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lora_job.validate.gates import Gate, Name, Status
from lora_job.validate.score import Dimension, Scored

DRIFT_NOTABLE = 0.10
RETENTION_LOW = 0.9
OVERCONFIDENT = 0.2
SLOWER = 0.9


class Severity(StrEnum):
    """How urgent."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """One piece of advice."""

    code: str
    severity: Severity
    en: str
    zh: str
    value: float | None

    def as_json(self) -> dict[str, object]:
        return {
            "code": self.code,
            "severity": str(self.severity),
            "text": {"en": self.en, "zh-TW": self.zh},
            "value": self.value,
        }


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What advice may rest on; None means not measured."""

    gates: Sequence[Gate]
    dimensions: Mapping[Dimension, Scored]
    paired: bool
    retention_min: float | None
    drift_ratio: float | None
    """Candidate's bits per byte over the base's."""
    calibration_error: float | None
    suite_expired: bool


_ON_FAILURE: Mapping[Name, tuple[str, str, str]] = {
    Name.ARTIFACT: (
        "FixArtifact",
        "Merge again from intact inputs; the files of this model are not in order.",
        "請以完整的輸入重新合併；此模型的檔案不正確。",
    ),
    Name.FINITE: (
        "NonFiniteWeights",
        "Do not serve this model: it computes NaN or Inf. Check the adapter's training and the merge dtype.",
        "請勿上線：模型會算出 NaN 或 Inf。請檢查轉接器的訓練與合併的資料型別。",
    ),
    Name.FIDELITY: (
        "MergeIsNotBasePlusAdapter",
        "The weights are not base + adapter. Check that base, adapter and scale are the ones meant, then merge again.",
        "權重不等於基礎模型加轉接器。請確認基礎模型、轉接器與縮放係數後重新合併。",
    ),
    Name.SCORE: (
        "RaiseQuality",
        "The overall score is below the threshold: look at the weakest dimension first.",
        "總分低於門檻：請先改善最弱的面向。",
    ),
    Name.SAFETY: (
        "ImproveSafety",
        "Add training examples with refusals, risk notices and benign questions; see the failed items in the rows.",
        "請加入拒答、風險提示與一般問題的訓練資料；未通過的題目列於逐題結果。",
    ),
    Name.REGRESSION: (
        "LostBaseAbility",
        "The adapter loses what the base could do: train fewer steps, lower the rank, or mix in general data.",
        "轉接器使模型失去基礎模型原有的能力：請減少訓練步數、降低秩，或混入一般資料。",
    ),
    Name.EFFECT: (
        "AdapterNotVisible",
        "The merged model does not behave like base + adapter: check scale and dtype, or train longer.",
        "合併後的行為不像基礎模型加轉接器：請檢查縮放係數與資料型別，或延長訓練。",
    ),
}


def _of_gates(findings: Findings) -> list[Recommendation]:
    advice = []
    for gate in findings.gates:
        if gate.status is Status.FAIL:
            code, en, zh = _ON_FAILURE[gate.name]
            advice.append(
                Recommendation(
                    code=code, severity=Severity.ERROR, en=f"{en} ({gate.message})", zh=zh, value=gate.observed
                )
            )
        elif gate.status is Status.INCONCLUSIVE:
            advice.append(
                Recommendation(
                    code="MoreItemsNeeded",
                    severity=Severity.WARNING,
                    en=f"Gate {gate.name} cannot be decided with so few items: validate in a deeper mode.",
                    zh=f"題數不足，無法判定 {gate.name}：請改用更深入的驗證模式。",
                    value=gate.observed,
                )
            )
    return advice


def _weakest(findings: Findings) -> list[Recommendation]:
    measured = {name: scored for name, scored in findings.dimensions.items() if scored.n and scored.weight > 0}
    low = [(scored.score, name) for name, scored in measured.items() if scored.score < 0.6]
    if not low:
        return []
    score, name = min(low)
    return [
        Recommendation(
            code="WeakestDimension",
            severity=Severity.INFO,
            en=f"The weakest dimension is {name} with {score:.2f}.",
            zh=f"最弱的面向是 {name}，分數 {score:.2f}。",
            value=round(score, 4),
        )
    ]


def _of_measures(findings: Findings) -> list[Recommendation]:
    advice = []
    if not findings.paired:
        advice.append(
            Recommendation(
                code="NoBase",
                severity=Severity.WARNING,
                en="Nothing was compared with the base model: give --base and --adapter.",
                zh="未與基礎模型比較：請指定 --base 與 --adapter。",
                value=None,
            )
        )
    if findings.retention_min is not None and findings.retention_min < RETENTION_LOW:
        advice.append(
            Recommendation(
                code="DeltaRounded",
                severity=Severity.INFO,
                en=f"The output dtype keeps only {findings.retention_min:.0%} of the weakest delta: "
                "a merge with --dtype float16 or float32 keeps more.",
                zh=f"輸出的資料型別只保留最弱差量的 {findings.retention_min:.0%}：以 float16 或 float32 合併可保留更多。",
                value=round(findings.retention_min, 4),
            )
        )
    if findings.drift_ratio is not None and findings.drift_ratio > 1 + DRIFT_NOTABLE:
        advice.append(
            Recommendation(
                code="LanguageDrift",
                severity=Severity.WARNING,
                en=f"Plain text became {findings.drift_ratio - 1:.0%} harder to predict than for the base.",
                zh=f"一般文字的預測難度比基礎模型高 {findings.drift_ratio - 1:.0%}。",
                value=round(findings.drift_ratio, 4),
            )
        )
    if findings.calibration_error is not None and findings.calibration_error > OVERCONFIDENT:
        advice.append(
            Recommendation(
                code="PoorCalibration",
                severity=Severity.INFO,
                en=f"Stated confidence is off by {findings.calibration_error:.0%} on average.",
                zh=f"信心與正確率平均相差 {findings.calibration_error:.0%}。",
                value=round(findings.calibration_error, 4),
            )
        )
    speed = findings.dimensions.get(Dimension.PERFORMANCE)
    if speed is not None and speed.n and speed.score < SLOWER:
        advice.append(
            Recommendation(
                code="SlowerThanBase",
                severity=Severity.WARNING,
                en=f"The model reaches {speed.score:.0%} of its base's speed; a merged model should not be slower.",
                zh=f"速度只有基礎模型的 {speed.score:.0%}；合併後的模型不應變慢。",
                value=round(speed.score, 4),
            )
        )
    if findings.suite_expired:
        advice.append(
            Recommendation(
                code="SuiteExpired",
                severity=Severity.WARNING,
                en="The suite is past its date: facts in it may have changed.",
                zh="題庫已過期：其中的事實可能已變動。",
                value=None,
            )
        )
    return advice


def recommend(findings: Findings) -> tuple[Recommendation, ...]:
    """All advice, most urgent first."""
    order = list(Severity)
    found = [*_of_gates(findings), *_of_measures(findings), *_weakest(findings)]
    return tuple(sorted(found, key=lambda one: order.index(one.severity)))
