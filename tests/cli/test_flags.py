"""How flags are written."""

import pytest

from jaxgen.cli.flags import switched
from jaxgen.cli.parse import parse_run, whole_number


@pytest.mark.parametrize(("word", "number"), [
    ("10000", 10000), ("1e4", 10000), ("2.5E3", 2500), ("-1e0", -1), ("1_000", 1000),
])  # fmt: skip
def test_whole_numbers(word, number):
    assert whole_number(word) == number and type(whole_number(word)) is int


@pytest.mark.parametrize("word", ["1.5", "1e-3", "ten", "nan", "inf", "1e400", ""])
def test_what_is_no_whole_number(word):
    with pytest.raises(ValueError, match=f"{word!r} is no whole number"):
        whole_number(word)


def test_switches_may_be_given_a_value():
    flags = {"conditional": bool, "net.gated": bool, "name": str}
    words = ["--conditional=True", "--net.gated=false", "--name=True", "--conditional", "x=True"]
    assert switched(words, flags) == [
        *("--conditional", "--net.no_gated", "--name=True", "--conditional", "x=True")
    ]


def test_a_run_is_described_either_way():
    plain = parse_run(["--model=vae", "--steps=10000", "--conditional"], "")[0]
    assert parse_run(["--model=vae", "--steps=1e4", "--conditional=true"], "")[0] == plain
    off = parse_run(["--model=vae", "--conditional=False", "--no_conditional"], "")[0]
    assert not off.data.conditional
    wide = parse_run(["--model=vae", "--vae.hidden", "1e2", "50"], "")[0]
    assert wide.model.hidden == (100, 50)
