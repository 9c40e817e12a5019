"""What is known of every method from its paper, and not from our code: a new method adds a row to each table."""

import math

import torch


def smooth(y):
    """A tenth of a one-hot target spread over four classes."""
    return 0.9 * y + 0.1 / 4


def softmax(z, t=1.0):
    e = (z / t).exp()
    return e / e.sum(dim=1, keepdim=True)


def kl(p, q):
    return (p * (p / q).log()).sum(dim=1)


def ce(p, target):
    return -(target * p.log()).sum(dim=1)


def w(T, y, x_):
    """T(x')_y^0.1, a constant."""
    return ((T(x_) * y).sum(dim=1) ** 0.1).detach()


def cosine(first, last, progress):
    """As the published code of ADR has it, of iteration i of n where i / n is the progress."""
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * progress))


def softened(T, y, x, progress, temperature=(2.5, 2.0), interpolation=(0.7, 0.95)):
    """ADR's label, image by image; T is the average of the student's weights."""
    rows = []
    for p, label in zip(T(x, cosine(*temperature, progress)), y, strict=True):
        share = cosine(*interpolation, progress) - (max(p) - p[label.argmax()])
        share = min(max(share, 0.0), 1.0)
        rows.append(share * p + (1 - share) * label)
    return torch.stack(rows)


# S and T are probabilities at a temperature, y is one-hot, x_ is the searched point.
SEARCHES = {
    "pgd-at": lambda S, T, y, x, x_: ce(S(x_), y),
    "trades": lambda S, T, y, x, x_: kl(S(x), S(x_)),
    "ard": lambda S, T, y, x, x_: ce(S(x_), y),
    "iad": lambda S, T, y, x, x_: ce(S(x_), y),
    "rslad": lambda S, T, y, x, x_: kl(T(x), S(x_)),
    "akd": lambda S, T, y, x, x_: ce(S(x_), y),
    "adaad": lambda S, T, y, x, x_: kl(T(x_), S(x_)),
    "adaiad": lambda S, T, y, x, x_: kl(T(x_), S(x_)),
    "adr": lambda S, T, y, x, x_: ce(S(x_), softened(T, y, x, SECOND)),
}
FIRST, SECOND = 0.29, 0.3
LOSSES = [
    ("pgd-at", {}, SECOND, lambda S, T, y, x, x_: ce(S(x_), y)),
    ("trades", {}, SECOND, lambda S, T, y, x, x_: ce(S(x), y) + 6 * kl(S(x), S(x_))),
    ("trades", {"beta": 1.5}, SECOND, lambda S, T, y, x, x_: ce(S(x), y) + 1.5 * kl(S(x), S(x_))),
    ("ard", {}, SECOND, lambda S, T, y, x, x_: 900 * kl(T(x, 30), S(x_, 30))),
    ("ard", {"temperature": 2}, SECOND, lambda S, T, y, x, x_: 4 * kl(T(x, 2), S(x_, 2))),
    ("iad", {}, FIRST, lambda S, T, y, x, x_: kl(T(x), S(x_))),
    ("iad", {}, SECOND, lambda S, T, y, x, x_: kl(T(x), S(x_)) + (1 - w(T, y, x_)) * kl(S(x), S(x_))),
    ("rslad", {}, SECOND, lambda S, T, y, x, x_: 5 / 6 * kl(T(x), S(x_)) + 1 / 6 * kl(T(x), S(x))),
    (
        "rslad",
        {"searched": "50/6", "clean": 2},
        SECOND,
        lambda S, T, y, x, x_: 50 / 6 * kl(T(x), S(x_)) + 2 * kl(T(x), S(x)),
    ),
    ("akd", {}, SECOND, lambda S, T, y, x, x_: ce(S(x_), 0.5 * T(x_) + 0.5 * y)),
    ("akd", {"k": 0.9}, SECOND, lambda S, T, y, x, x_: ce(S(x_), 0.9 * T(x_) + 0.1 * y)),
    ("adaad", {}, SECOND, lambda S, T, y, x, x_: kl(T(x_), S(x_))),
    ("adaad", {"alpha": 0.25}, SECOND, lambda S, T, y, x, x_: 0.25 * kl(T(x_), S(x_)) + 0.75 * kl(T(x), S(x))),
    (
        "adaad",
        {"alpha": 0.25, "direction": "student_teacher"},
        SECOND,
        lambda S, T, y, x, x_: 0.25 * kl(S(x_), T(x_)) + 0.75 * kl(S(x), T(x)),
    ),
    ("adaiad", {}, FIRST, lambda S, T, y, x, x_: 900 * kl(T(x_, 30), S(x_, 30))),
    (
        "adaiad",
        {"temperature": 2},
        SECOND,
        lambda S, T, y, x, x_: 4 * kl(T(x_, 2), S(x_, 2)) + (1 - w(T, y, x_)) * kl(S(x), S(x_)),
    ),
    ("adr", {}, SECOND, lambda S, T, y, x, x_: ce(S(x_), softened(T, y, x, SECOND))),
    ("adr", {}, 1.0, lambda S, T, y, x, x_: ce(S(x_), softened(T, y, x, 1.0))),
    (
        "adr",
        {"temperature": [1.5, 1], "interpolation": [0.2, 0.4]},
        FIRST,
        lambda S, T, y, x, x_: ce(S(x_), softened(T, y, x, FIRST, (1.5, 1), (0.2, 0.4))),
    ),
]
SMOOTHED = {
    "pgd-at": lambda S, T, y, x, x_: ce(S(x_), smooth(y)),
    "trades": lambda S, T, y, x, x_: ce(S(x), smooth(y)) + 6 * kl(S(x), S(x_)),
    "akd": lambda S, T, y, x, x_: ce(S(x_), 0.5 * T(x_) + 0.5 * smooth(y)),
}
"""The losses in which labels are, with labels that are smoothed."""

STEPS = 3
COST = {  # forwards of (T(x), T(x'), S(x), S(x')) in a search of three steps and a loss, in the second phase
    "pgd-at": (0, 0, 0, STEPS + 1),
    "trades": (0, 0, 2, STEPS + 1),
    "ard": (1, 0, 0, STEPS + 1),
    "iad": (1, 1, 1, STEPS + 1),
    "rslad": (1, 0, 1, STEPS + 1),
    "akd": (0, 1, 0, STEPS + 1),
    "adaad": (0, STEPS + 1, 0, STEPS + 1),
    "adaiad": (0, STEPS + 1, 1, STEPS + 1),
    "adr": (1, 0, 0, STEPS + 1),
}

PUBLISHED = {  # start, mode of the student in the search, reduction, weight decay, epochs, milestones
    "pgd-at": ("gaussian", "eval", "batchmean", 5e-4, 110, (100, 105)),
    "trades": ("gaussian", "eval", "batchmean", 2e-4, 76, (75,)),
    "ard": ("uniform", "train", "mean", 2e-4, 200, (100, 150)),
    "iad": ("uniform", "train", "batchmean", 2e-4, 200, (100, 150)),
    "rslad": ("gaussian", "eval", "mean", 2e-4, 300, (215, 260, 285)),
    "akd": ("gaussian", "eval", "batchmean", 5e-4, 200, (100, 150)),
    "adaad": ("gaussian", "eval", "mean", 5e-4, 200, (100, 150)),
    "adaiad": ("gaussian", "eval", "batchmean", 5e-4, 200, (100, 150)),
    "adr": ("uniform", "train", "batchmean", 5e-4, 200, (100, 150)),
}
