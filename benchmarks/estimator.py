"""`pellucid.ImageClassifier` against scikit-learn's own classifiers: five-fold cross-validation on flattened digits.

    python benchmarks/estimator.py [--seeds 3] [--json]

Ends with status 1 where the mean accuracy of `ImageClassifier` is below that of another.

All are asked by the same `cross_val_score(classifier, X, y, cv=5)` on the 1,797 rows of 64 values that scikit-learn's
`load_digits` gives, whose folds are whole runs of the file: other writers than those trained on, for the most part.
What depends on chance is repeated with other seeds. The support-vector machine is asked as it comes, and with the gamma
of scikit-learn's own example of recognising these digits; the multilayer perceptron as it does best of values as they
are, standardised, and scaled to [0, 1].
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

from machine import described, record_header, teller
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC

from pellucid import ImageClassifier

CLASSIFIERS = {  # by name: made with a seed
    "ImageClassifier()": lambda seed: ImageClassifier(random_state=seed),
    "MinMaxScaler, MLPClassifier(max_iter=1000)": lambda seed: make_pipeline(
        MinMaxScaler(), MLPClassifier(max_iter=1000, random_state=seed)),
    "SVC()": lambda seed: SVC(),
    "SVC(gamma=0.001)": lambda seed: SVC(gamma=0.001),
}
WITHOUT_CHANCE = {"SVC()", "SVC(gamma=0.001)"}


def crossed(classifier) -> tuple[float, float]:
    """(mean accuracy of five folds, seconds for fitting and asking five times)."""
    X, y = load_digits(return_X_y=True)
    start = time.perf_counter()
    scores = cross_val_score(classifier, X, y, cv=5, error_score="raise")
    return float(scores.mean()), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 on")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error("at least one seed is needed")
    record = {**record_header("estimator", ["numpy", "scikit-learn"]), "seeds": options.seeds, "results": {}}
    tell = teller(options.json)
    tell(described(record))
    for name, made in CLASSIFIERS.items():
        seeds = range(1 if name in WITHOUT_CHANCE else options.seeds)
        accuracies, seconds = zip(*(crossed(made(seed)) for seed in seeds), strict=True)
        record["results"][name] = {"accuracy": round(statistics.mean(accuracies), 5),
                                   "each": [round(a, 5) for a in accuracies],
                                   "seconds": round(statistics.median(seconds), 2)}
        each = ", ".join(f"{100 * a:.2f}" for a in accuracies)
        tell(f"{name:46} {100 * statistics.mean(accuracies):.2f}% ({each})  {statistics.median(seconds):.1f} s")
    if options.json:
        print(json.dumps(record))
    mine, *others = (result["accuracy"] for result in record["results"].values())
    if mine < max(others):
        sys.exit("estimator: another classifier is more accurate")


if __name__ == "__main__":
    main()
