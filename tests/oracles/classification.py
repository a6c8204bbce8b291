"""Twins of `combined_losses.losses.classification`."""

import math

import numpy as np

FLOOR, TANGENT = 1e-30, 1e-7


def _log(q):
    """The logarithm, along its tangent below 1e-7, and its slope."""
    if q < TANGENT:
        return math.log(TANGENT) + (q - TANGENT) / TANGENT, 1 / TANGENT
    return math.log(q), 1 / q


def _power(miss, gamma):
    """`max(miss, 1e-30)^gamma` and its slope."""
    if miss < FLOOR:
        return FLOOR**gamma, 0.0
    return miss**gamma, gamma * miss ** (gamma - 1)


def _sigmoid(z):
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def _binary(y, p, from_logits, pos_weight=1.0):
    """What one element misses, its cross-entropy, and the slopes of both."""
    if from_logits:
        right, wrong = _sigmoid(p), _sigmoid(-p)
        miss = y * wrong + (1 - y) * right
        tail = math.log1p(math.exp(-abs(p)))  # softplus(z) = max(z, 0) + tail
        entropy = pos_weight * y * (max(-p, 0) + tail) + (1 - y) * (max(p, 0) + tail)
        # sigmoid(z) - y without its cancellation, sigmoid(z) = 1 - sigmoid(-z)
        return miss, entropy, (1 - 2 * y) * right * wrong, (1 - y) * right - pos_weight * y * wrong
    (log_p, slope_p), (log_q, slope_q) = _log(p), _log(1 - p)
    miss, entropy = y * (1 - p) + (1 - y) * p, -(pos_weight * y * log_p + (1 - y) * log_q)
    return miss, entropy, 1 - 2 * y, -(pos_weight * y * slope_p - (1 - y) * slope_q)


def binary_focal(
    y_true,
    y_pred,
    gamma=2.0,
    alpha=None,
    from_logits=False,
    pos_weight=None,
    label_smoothing=0.0,
):
    values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
    elements = y_pred.shape[-1]
    for index in np.ndindex(*y_pred.shape):
        y, p = float(y_true[index]), float(y_pred[index])
        y = y * (1 - label_smoothing) + label_smoothing / 2
        own, factor = (
            np.broadcast_to(1.0 if each is None else each, elements)[index[-1]]
            for each in (alpha, pos_weight)
        )
        miss, entropy, slope_miss, slope_entropy = _binary(y, p, from_logits, factor)
        power, slope_power = _power(miss, gamma)
        price = 1.0 if alpha is None else own * y + (1 - own) * (1 - y)
        values[index[:-1]] += price * power * entropy / elements
        slope = slope_power * slope_miss * entropy + power * slope_entropy
        gradient[index] = price * slope / elements
    return values, gradient


def categorical_focal(
    y_true,
    y_pred,
    gamma=2.0,
    class_weight=None,
    from_logits=False,
    multilabel=False,
    label_smoothing=0.0,
):
    if multilabel:
        focal = {"gamma": gamma, "from_logits": from_logits, "label_smoothing": label_smoothing}
        return of_independent_classes(binary_focal, y_true, y_pred, class_weight, **focal)
    y_true = np.float64(y_true) * (1 - label_smoothing) + label_smoothing / y_pred.shape[-1]
    values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
    classes = y_pred.shape[-1]
    for index in np.ndindex(*y_pred.shape[:-1]):
        row = np.float64(y_pred[index])
        shares = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        for c in range(classes):
            price = float(y_true[index][c]) * (1.0 if class_weight is None else class_weight[c])
            if from_logits:
                others = np.exp(np.delete(row, c) - row[c]).sum()  # p = 1 / (1 + others)
                miss, log_p, slope_log = others / (1 + others), -math.log1p(others), 1 / shares[c]
            else:
                miss, (log_p, slope_log) = 1 - row[c], _log(row[c])
            power, slope_power = _power(miss, gamma)
            values[index] -= price * power * log_p
            slope = -price * (power * slope_log - slope_power * log_p)  # d / d p_c
            if from_logits:  # d p_c / d z_k = p_c (1 if k is c else 0) - p_c p_k
                gradient[index] += slope * shares[c] * (np.eye(classes)[c] - shares)
            else:
                gradient[index][c] += slope
    return values, gradient


def of_independent_classes(twin, y_true, y_pred, class_weight, **arguments):
    """The sum of the binary losses of the classes, each as an array with one channel."""
    values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
    for c in range(y_pred.shape[-1]):
        own, price = np.s_[..., c : c + 1], 1.0 if class_weight is None else class_weight[c]
        found = twin(y_true[own], y_pred[own], **arguments)
        values += price * found[0]
        gradient[own] = price * found[1]
    return values, gradient


def sparse_categorical_focal(y_true, y_pred, **arguments):
    labels = np.reshape(y_true, y_pred.shape[:-1]).astype(int)
    return categorical_focal(np.eye(y_pred.shape[-1])[labels], y_pred, **arguments)


def asymmetric_focal(
    y_true,
    y_pred,
    gamma_pos=1.0,
    gamma_neg=4.0,
    margin=0.05,
    label_smoothing=0.0,
    from_logits=False,
):
    values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
    elements = y_pred.shape[-1]
    for index in np.ndindex(*y_pred.shape):
        y, z = float(y_true[index]), float(y_pred[index])
        y = y * (1 - label_smoothing) + label_smoothing / 2
        if from_logits:
            p, back = _sigmoid(z), _sigmoid(z) * _sigmoid(-z)
            wrong, log_p, by_log_p = _sigmoid(-z), -np.logaddexp(0, -z), 1 / _sigmoid(z)
            free, by_free = -np.logaddexp(0, z), -1 / _sigmoid(-z)
        else:
            p, back, wrong = z, 1.0, 1 - z
            (log_p, by_log_p), (free, by_free) = _log(p), _log(1 - p)
            by_free = -by_free
        q, moves = p, 1.0
        if margin > 0:
            q, moves = max(p - margin, 0.0), float(p > margin)
            free, by_free = math.log(min(1 - p + margin, 1)), -moves / (1 - q)
        (right, by_wrong), (hard, by_q) = _power(wrong, gamma_pos), _power(q, gamma_neg)
        values[index[:-1]] -= (y * right * log_p + (1 - y) * hard * free) / elements
        slope = y * (right * by_log_p - by_wrong * log_p)
        slope += (1 - y) * (hard * by_free + by_q * moves * free)
        gradient[index] = -slope * back / elements
    return values, gradient


def quality_focal(y_true, y_pred, beta=2.0, from_logits=False):
    values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
    elements = y_pred.shape[-1]
    for index in np.ndindex(*y_pred.shape):
        y, z = float(y_true[index]), float(y_pred[index])
        _, entropy, _, slope_entropy = _binary(y, z, from_logits)
        p, back = (_sigmoid(z), _sigmoid(z) * _sigmoid(-z)) if from_logits else (z, 1.0)
        power, slope_power = _power(abs(y - p), beta)
        values[index[:-1]] += power * entropy / elements
        slope = power * slope_entropy + slope_power * np.sign(p - y) * back * entropy
        gradient[index] = slope / elements
    return values, gradient


def varifocal(y_true, y_pred, alpha=0.75, gamma=2.0, from_logits=False):
    values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
    elements = y_pred.shape[-1]
    for index in np.ndindex(*y_pred.shape):
        y, z = float(y_true[index]), float(y_pred[index])
        miss, entropy, slope_miss, slope_entropy = _binary(y, z, from_logits)
        weight, slope_weight = y, 0.0
        if y == 0:  # what such an element misses is p
            power, slope_power = _power(miss, gamma)
            weight, slope_weight = alpha * power, alpha * slope_power * slope_miss
        values[index[:-1]] += weight * entropy / elements
        gradient[index] = (weight * slope_entropy + slope_weight * entropy) / elements
    return values, gradient


def poly_cross_entropy(
    y_true,
    y_pred,
    epsilon=1.0,
    class_weight=None,
    label_smoothing=0.0,
    multilabel=False,
    from_logits=False,
):
    """Cross-entropy, which is focal with gamma 0, and the term of what is missing."""
    options = {"from_logits": from_logits, "label_smoothing": label_smoothing}
    values, gradient = categorical_focal(
        y_true, y_pred, 0.0, class_weight, multilabel=multilabel, **options
    )
    z = np.float64(y_pred)
    y, price = np.float64(y_true), np.float64(1.0 if class_weight is None else class_weight)
    y = y * (1 - label_smoothing) + label_smoothing / (2 if multilabel else z.shape[-1])
    # The terms are linear in p: epsilon (1 - p) for y, and of tags epsilon p for 1 - y.
    by_p = -epsilon * price * (y - (1 - y) if multilabel else y)
    p = z
    if from_logits:
        p = 1 / (1 + np.exp(-z)) if multilabel else np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    terms = epsilon * price * (y * (1 - p) + ((1 - y) * p if multilabel else 0))
    slope = by_p
    if from_logits and multilabel:
        slope = by_p * p * (1 - p)
    elif from_logits:
        slope = p * (by_p - np.sum(p * by_p, axis=-1, keepdims=True))
    return values + terms.sum(axis=-1), gradient + slope


def weighted_kappa(y_true, y_pred, num_classes, power=2, over="batch", sample_weight=None):
    """Values, and the gradient of their sum; all means are weighted by `sample_weight`."""
    y_true, y_pred = np.asarray(y_true), np.float64(y_pred)
    samples, classes, flat = len(y_pred), range(num_classes), (len(y_pred), -1, num_classes)
    if y_true.shape != y_pred.shape:
        y_true = np.eye(num_classes)[np.reshape(y_true, y_pred.shape[:-1]).astype(int)]
    shape, y_true, y_pred = y_pred.shape, np.reshape(y_true, flat), np.reshape(y_pred, flat)
    weight = np.ones(shape[:-1]) if sample_weight is None else np.float64(sample_weight)
    weight = np.broadcast_to(
        weight.reshape(*weight.shape, *[1] * (len(shape) - 1 - weight.ndim)), shape[:-1]
    )
    weight = weight.reshape(samples, -1)
    cost = np.array([[(abs(i - j) / (num_classes - 1)) ** power for j in classes] for i in classes])
    if over == "sample":
        found = [_kappa(*each, cost) for each in zip(y_true, y_pred, weight, strict=True)]
        values, gradient = zip(*found, strict=True)
        return np.concatenate(values), np.stack(gradient).reshape(shape)
    rows = [each.reshape(-1, *each.shape[2:]) for each in (y_true, y_pred, weight)]
    of = np.repeat(np.arange(samples), y_pred.shape[1])
    values, gradient = _kappa(*rows, cost, of)
    return values, gradient.reshape(shape)


def _kappa(y_true, y_pred, weight, cost, of=None):
    """The values of the samples whose positions are these; `of` is the sample of each."""
    of = np.zeros(len(y_pred), int) if of is None else of
    samples, classes, share = of.max() + 1, range(len(cost)), weight / weight.sum()
    truth = [sum(share[n] * y_true[n, i] for n in range(len(of))) for i in classes]
    predicted = [sum(share[n] * y_pred[n, j] for n in range(len(of))) for j in classes]
    chance = sum(cost[i][j] * truth[i] * predicted[j] for i in classes for j in classes)
    floored = max(chance, 1e-7)
    own = np.float64(y_true) @ cost  # what class j would cost at each position
    # An own share of 1 where all positions of a sample have weight 0: outside it counts 0 times.
    totals = np.array([weight[of == n].sum() for n in range(samples)])
    inner = np.where(totals[of] > 0, weight / np.where(totals > 0, totals, 1)[of], 1.0)
    values = np.zeros(samples)
    np.add.at(values, of, inner * np.sum(own * y_pred, axis=1) / floored)
    gradient = inner[:, None] * own / floored
    if chance > 1e-7:
        # d chance / d p_nj = share_n sum_i cost_ij truth_i
        slope = np.outer(share, np.array(truth) @ cost)
        gradient = gradient - np.sum(values) / floored * slope
    return values, gradient


def ordinal(y_true, y_pred, method="coral", importance=None, from_logits=False):
    """Each answer as a label of its own."""
    labels = np.reshape(y_true, y_pred.shape[:-1]).astype(int)
    values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
    for index in np.ndindex(*y_pred.shape):
        y, k = labels[index[:-1]], index[-1]
        if method == "corn" and k > y:
            continue
        price = 1.0 if importance is None else importance[k]
        _, entropy, _, slope = _binary(float(y > k), float(y_pred[index]), from_logits)
        values[index[:-1]] += price * entropy
        gradient[index] = price * slope
    return values, gradient


def arc_face(y_true, y_pred, margin=0.5, scale=64.0, subcenters=1):
    def lowered(cosine):
        if cosine <= -math.cos(margin):
            return cosine - margin * math.sin(margin), 1.0
        root = math.sqrt(max(1 - cosine**2, 1e-12))
        slope = cosine / root if 1 - cosine**2 > 1e-12 else 0.0
        down = cosine * math.cos(margin) - root * math.sin(margin)
        return down, math.cos(margin) + slope * math.sin(margin)

    return _of_cosines(lowered, y_true, y_pred, scale, subcenters)


def cos_face(y_true, y_pred, margin=0.35, scale=64.0, subcenters=1):
    return _of_cosines(lambda cosine: (cosine - margin, 1.0), y_true, y_pred, scale, subcenters)


def _of_cosines(lowered, y_true, y_pred, scale, subcenters):
    labels = np.reshape(y_true, y_pred.shape[:-1]).astype(int)
    values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
    for index in np.ndindex(*y_pred.shape[:-1]):
        centres = np.float64(y_pred[index]).reshape(-1, subcenters)
        nearest, own = centres.argmax(axis=1), labels[index]
        cosines, slopes = centres.max(axis=1), np.ones(len(centres))
        cosines[own], slopes[own] = lowered(cosines[own])
        logits = scale * cosines
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        others = np.exp(np.delete(logits, own) - logits.max()).sum()
        values[index] = logits.max() - logits[own]
        values[index] += math.log(others + math.exp(logits[own] - logits.max()))
        by_class = scale * (shares - (np.arange(len(centres)) == own)) * slopes
        for c, s in enumerate(nearest):
            gradient[index][c * subcenters + s] = by_class[c]
    return values, gradient


def tree_cross_entropy(y_true, y_pred, levels, decay=0.5, from_logits=False):
    labels = np.reshape(y_true, y_pred.shape[:-1]).astype(int)
    values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
    leaves = [list(range(y_pred.shape[-1])), *levels]
    for index in np.ndindex(*y_pred.shape[:-1]):
        row, own = np.float64(y_pred[index]), labels[index]
        shares = np.exp(row - row.max()) / np.exp(row - row.max()).sum() if from_logits else row
        before = 0.0
        for level, groups in enumerate(leaves):
            inside = [c for c in range(len(row)) if groups[c] == groups[own]]
            log_q, slope = _log(sum(shares[c] for c in inside))
            # log q_l stands in two terms: with its own weight, and minus that of the level before.
            weight = math.exp(-decay * level)
            values[index] -= (weight - before) * log_q
            for c in inside:
                gradient[index][c] -= (weight - before) * slope
            before = weight
        if from_logits:
            gradient[index] = shares * (gradient[index] - np.sum(shares * gradient[index]))
    return values, gradient


def sparse_cross_entropy(y_true, y_pred, label_smoothing=0.0, ignore_class=None, from_logits=False):
    """Focal with gamma 0; ignored positions are 0."""
    labels = np.reshape(y_true, y_pred.shape[:-1]).astype(int)
    counts = np.ones(labels.shape, bool) if ignore_class is None else labels != ignore_class
    options = {"from_logits": from_logits, "label_smoothing": label_smoothing}
    values, gradient = categorical_focal(
        np.eye(y_pred.shape[-1])[np.where(counts, labels, 0)], y_pred, 0.0, **options
    )
    return values * counts, gradient * counts[..., None]


def z_loss(y_true, y_pred):
    values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
    for index in np.ndindex(*y_pred.shape[:-1]):
        row = np.float64(y_pred[index])
        weights = np.exp(row - row.max())
        partition = row.max() + math.log(math.fsum(weights))
        values[index] = partition**2
        gradient[index] = 2 * partition * weights / weights.sum()
    return values, gradient


def distillation(y_true, y_pred, temperature=2.0):
    values, gradient = np.zeros(y_pred.shape[:-1]), np.zeros(y_pred.shape)
    for index in np.ndindex(*y_pred.shape[:-1]):
        rows = [np.float64(each[index]) / temperature for each in (y_true, y_pred)]
        q, p = (np.exp(row - row.max()) / np.exp(row - row.max()).sum() for row in rows)
        values[index] = temperature**2 * math.fsum(q * np.log(q / p))
        gradient[index] = temperature * (p - q)
    return values, gradient
