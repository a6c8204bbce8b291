"""Mistakes that type checkers must find: an error in each line that ends in `# typo`, no other."""

from typing import Any

import keras  # type: ignore[import-untyped]  # Keras has no types

import combined_losses as cl
from combined_losses.callbacks import TerminateOnComponentNaN
from combined_losses.diagnosis import Diagnosis


def of_a_composite(loss: cl.CompositeLoss) -> None:
    loss.set_weigth("mse", 0.5)  # typo
    loss.weigths  # typo
    loss.set_weight("mse", "0.5")  # typo
    loss.compnents([1.0], [2.0])  # typo
    (0.5 * loss).nmaes  # typo
    (cl.as_loss("mse") + loss).as_metric()  # typo
    loss.weights["mse"].upper()  # typo
    loss.on_nonfinte  # typo


def of_arguments() -> None:
    cl.CompositeLoss(["mse"], on_nonfinite="skipp")  # typo
    cl.CompositeLoss(["mse"], reduction="per_part")  # typo
    cl.CompositeLoss(["mse"], wieghts={"mse": 0.5})  # typo
    cl.CompositeLoss(["mse"], weighting="gradnorm")  # typo
    cl.CompositeLoss(7)  # typo
    cl.losses.Dice(smoth=1.0)  # typo
    cl.losses.Dice(smooth="1.0")  # typo
    cl.losses.Dice(reduction="avg")  # typo
    cl.losses.Pinball(quantiles=0.5)  # typo
    cl.losses.CIoU(format="yxyx1")  # typo
    cl.losses.dice_ce(from_logit=True)  # typo
    cl.weightings.GradNorm(alhpa=1.5)  # typo
    cl.weightings.GradNorm(warm_up=3)  # typo
    cl.weightings.CAGrad(gradients=0)  # typo
    cl.weightings.LinearRamp(step=3)  # typo
    cl.wrappers.Masked("mse", mask_valu=0.0)  # typo
    cl.wrappers.Masked("mse", nmae="a")  # typo
    cl.callbacks.LossWeightScheduler("mse", 0.5)  # typo
    cl.callbacks.GradientConflict(at="outptu")  # typo


def of_points(points: cl.PointSets) -> None:
    cl.Box([0.0], [1.0], method="sobl")  # typo
    cl.PointSets({"a": cl.Box([0.0], [1.0])}, batch="4")  # typo
    points.get_sate()  # typo
    points.epochs  # typo


def of_names() -> None:
    cl.losses.Dise()  # typo
    cl.weightings.GradNrom()  # typo
    cl.wrappers.OnSlise("mse", 0)  # typo
    cl.callbacks.TensorBord()  # typo
    cl.plots.component({})  # typo
    cl.diagnoze  # typo


def of_a_loss(loss: cl.losses.Dice) -> None:
    loss.smoth  # typo
    loss.reduction.uper()  # typo
    loss.get_confg()  # typo


def of_a_wrapper(loss: cl.wrappers.OnSlice) -> None:
    loss.indx  # typo
    loss.set_weigth("mse", 0.5)  # typo


def of_a_rule(rule: cl.weightings.UncertaintyWeighting) -> None:
    rule.warm_up  # typo
    rule.wiegh([1.0, 2.0])  # typo


def of_a_schedule(ramp: cl.weightings.LinearRamp) -> None:
    ramp.stpes  # typo


def of_a_callback(stop: TerminateOnComponentNaN) -> None:
    stop.componnets  # typo


def of_a_result(model: cl.Model, x: Any, y: Any) -> None:
    diagnosis = cl.diagnose(model, x, y)
    diagnosis.flagz  # typo
    diagnosis["mse"].valeu  # typo
    diagnosis.faults[0].flga  # typo
    diagnosis.flags["mse"].upper()  # typo
    cl.diagnose(model, x, y, at="outptu")  # typo


def of_a_users_own(diagnosis: Diagnosis, loss: "Own") -> None:
    loss.costs  # typo
    diagnosis.to_fram()  # typo


class Own(cl.losses.Loss):
    cost = 1.0

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.cots * keras.ops.abs(y_true - y_pred)  # typo
