"""The accuracy that the defaults reach on real images."""

import pytest

import pellucid


@pytest.fixture(scope="module")
def run():
    return pellucid.fit("lenet", "digits", seed=0, out=False)


def test_the_defaults_learn_handwritten_digits(run):
    assert run.test["count"] == 450
    assert run.test_accuracy >= 0.975


def test_the_model_is_the_one_that_was_measured(run):
    part = pellucid.data.split(pellucid.data.load("digits"), 0).test
    predicted = run.model.predict(part.images).argmax(axis=1)
    assert (predicted == part.labels).sum() == run.test["correct"]
