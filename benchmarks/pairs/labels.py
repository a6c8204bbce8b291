"""Grades, beside coral-pytorch; margins, beside pytorch-metric-learning; tokens, beside torch.

32768 samples of ten grades; 512 embeddings of 128 numbers and 1000 classes; 8 x 128 tokens of 8192;
512 pairs of 128 numbers. The bare formulas of tokens are those of Keras, of one-hot labels.
"""

import sys
import types

import keras
import numpy as np
import torch
from keras import ops

import combined_losses as cl
from pairs import Pair

# pytorch-metric-learning imports a progress bar, for its trainers.
sys.modules.setdefault("tqdm", types.SimpleNamespace(tqdm=None))

from coral_pytorch import losses as coral  # noqa: E402
from pytorch_metric_learning import losses  # noqa: E402

functional = torch.nn.functional
CENTRES = np.random.default_rng(1).normal(size=(128, 1000)).astype("float32")
LOG_Q = np.log(np.random.default_rng(2).dirichlet(np.ones(5000))).astype("float32")


def grades(rng):
    return rng.integers(0, 10, 32768), rng.normal(size=(32768, 9)).astype("float32")


def coral_loss(labels, logits):
    levels = (labels[:, None] > torch.arange(9)).float()
    return coral.coral_loss(logits, levels)


def corn_loss(labels, logits):
    """The sum over the batch divided by the number of answers that count."""
    return coral.corn_loss(logits, labels, num_classes=10)


def embeddings(rng):
    return rng.integers(0, 1000, 512), rng.normal(size=(512, 128)).astype("float32")


def of_cosines(loss):
    """Ours with the cosines, which the peer makes itself."""
    own = loss()
    centres = CENTRES / np.linalg.norm(CENTRES, axis=0)

    def of_embeddings(labels, x):
        return own(labels, ops.normalize(x, axis=-1) @ ops.convert_to_tensor(centres))

    return of_embeddings


def peer_of(name, margin):
    loss = getattr(losses, name)(1000, 128, margin=margin, scale=64)
    loss.W.data = torch.tensor(CENTRES)
    loss.W.requires_grad_(False)
    return lambda labels, x: loss(x, labels)


def tokens(rng):
    labels = rng.integers(0, 8192, (8, 128))
    return labels, rng.normal(size=(8, 128, 8192)).astype("float32")


def entropy(labels, logits, smoothing=0.0):
    flat = logits.reshape(-1, 8192), labels.reshape(-1)
    return functional.cross_entropy(*flat, label_smoothing=smoothing)


def entropy_of_keras(labels, logits):
    one_hot = ops.one_hot(labels, 8192, dtype="float32")
    options = {"from_logits": True, "label_smoothing": 0.1}
    return ops.mean(keras.losses.categorical_crossentropy(one_hot, logits, **options))


def sparse_entropy_of_keras(labels, logits):
    options = {"from_logits": True}
    return ops.mean(keras.losses.sparse_categorical_crossentropy(labels, logits, **options))


def z_loss(labels, logits):
    return torch.logsumexp(logits, dim=-1).square().mean()


def answers(rng):
    return rng.normal(size=(2, 8, 128, 8192)).astype("float32")


def distillation(teacher, student):
    soft, guess = functional.softmax(teacher / 2, -1), functional.log_softmax(student / 2, -1)
    divergence = functional.kl_div(guess.flatten(0, 1), soft.flatten(0, 1), reduction="batchmean")
    return 4 * divergence


def pairs_of_towers(rng):
    return rng.integers(0, 5000, 512), rng.normal(0, 0.2, (512, 2, 128)).astype("float32")


def in_batch(ids, pairs):
    scores = pairs[:, 0] @ pairs[:, 1].T / 0.2 - torch.tensor(LOG_Q)[ids]
    hits = (ids[:, None] == ids) & ~torch.eye(len(ids), dtype=torch.bool)
    return functional.cross_entropy(scores.masked_fill(hits, -torch.inf), torch.arange(len(ids)))


PAIRS = {
    "Ordinal": Pair(grades, lambda: cl.losses.Ordinal(from_logits=True), lambda: coral_loss),
    "Ordinal, corn": Pair(
        grades, lambda: cl.losses.Ordinal("corn", from_logits=True), lambda: corn_loss
    ),
    "ArcFace": Pair(
        embeddings,
        lambda: of_cosines(cl.losses.ArcFace),
        lambda: peer_of("ArcFaceLoss", np.degrees(0.5)),
    ),
    "CosFace": Pair(
        embeddings, lambda: of_cosines(cl.losses.CosFace), lambda: peer_of("CosFaceLoss", 0.35)
    ),
    "SparseCrossEntropy": Pair(
        tokens,
        lambda: cl.losses.SparseCrossEntropy(from_logits=True),
        lambda: entropy,
        bare=sparse_entropy_of_keras,
    ),
    "SparseCrossEntropy, 0.1": Pair(
        tokens,
        lambda: cl.losses.SparseCrossEntropy(0.1, from_logits=True),
        lambda: lambda labels, logits: entropy(labels, logits, 0.1),
        bare=entropy_of_keras,
    ),
    "ZLoss": Pair(tokens, cl.losses.ZLoss, lambda: z_loss),
    "Distillation": Pair(answers, cl.losses.Distillation, lambda: distillation),
    "InBatchSoftmax": Pair(
        pairs_of_towers, lambda: cl.losses.InBatchSoftmax(0.2, log_q=LOG_Q), lambda: in_batch
    ),
}
