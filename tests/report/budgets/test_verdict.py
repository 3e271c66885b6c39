"""What is said of verdicts: JUnit XML for CI servers, and the one line of the exit."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest
from junitparser import JUnitXml

from tfprune.errors import TfpruneError, UsageError
from tfprune.report.budgets.verdict import Verdict, junit_xml, require_kept

KEPT = Verdict(
    rule=1,
    variant="dense",
    artifact="tflite",
    figure="accuracy",
    limit="min",
    given=0.8,
    against=None,
    outcome="kept",
    value=0.9,
    seeds=1,
    bound=0.8,
    margin=0.1,
    source="dense/seed-0/record.json",
)
BROKEN = Verdict(
    rule=2,
    variant="weights-80",
    artifact="tflite-int8",
    figure="bytes_gzip",
    limit="max_ratio",
    given=0.5,
    against="dense",
    outcome="broken",
    value=10_240,
    seeds=1,
    reference=18_432,
    bound=9_216,
    margin=-1024,
    source="weights-80/seed-0/record.json",
)
MISSING = Verdict(
    rule=3,
    variant="weights-*",
    artifact="*",
    figure="latency_ms",
    limit="max",
    given=0.25,
    against=None,
    outcome="missing",
    reason="no variant is called 'weights-*': choose one of <dense> & \"slim\"",
)
TEXT = """\
<?xml version="1.0" encoding="utf-8"?>
<testsuites name="tfprune check" tests="3" failures="1" errors="1" skipped="0" time="0.0">
  <testsuite name="budget of digits" tests="3" errors="1" failures="1" skipped="0" time="0">
    <testcase name="rule #1: accuracy at least 80.00%" classname="digits.dense.tflite">
      <system-out>rule #1: dense tflite: accuracy 90.00%, at least 80.00% is asked \
(dense/seed-0/record.json)</system-out>
    </testcase>
    <testcase name="rule #2: gzip at most 0.5 times dense" \
classname="digits.weights-80.tflite-int8">
      <failure message="rule #2: weights-80 tflite-int8: gzip 10.0 KiB, but at most 0.5 times \
dense = 9.0 KiB is asked: 1.0 KiB too much (weights-80/seed-0/record.json)" type="broken">\
rule #2: weights-80 tflite-int8: gzip 10.0 KiB, but at most 0.5 times \
dense = 9.0 KiB is asked: 1.0 KiB too much (weights-80/seed-0/record.json)</failure>
    </testcase>
    <testcase name="rule #3: latency at most 0.250 ms" classname="digits.weights-*.*">
      <error message="rule #3: no variant is called 'weights-*': choose one of &lt;dense&gt; \
&amp; &quot;slim&quot;" type="missing">rule #3: no variant is called 'weights-*': choose one of \
&lt;dense&gt; &amp; &quot;slim&quot;</error>
    </testcase>
  </testsuite>
</testsuites>
"""


def test_exactly_this_is_written():
    assert junit_xml("digits", [KEPT, BROKEN, MISSING]) == TEXT


def test_it_is_read_back_with_the_right_counts():
    (suite,) = JUnitXml.fromstring(junit_xml("digits", [KEPT, BROKEN, MISSING]).encode())
    assert (suite.tests, suite.failures, suite.errors) == (3, 1, 1)
    assert [[type(each).__name__ for each in case.result] for case in suite] == [
        [],
        ["Failure"],
        ["Error"],
    ]


def test_every_case_is_called_differently_and_the_same_next_time():
    def names(*verdicts: Verdict) -> list[tuple[str, str]]:
        root = ElementTree.fromstring(junit_xml("digits", verdicts))
        return [(case.attrib["classname"], case.attrib["name"]) for case in root.iter("testcase")]

    first = names(KEPT, BROKEN, MISSING)
    assert len(set(first)) == 3
    fields = {**BROKEN.__dict__, "value": 1.0, "bound": 2.0, "margin": 1.0, "outcome": "kept"}
    assert names(KEPT, Verdict(**fields), MISSING) == first


def test_what_xml_cannot_hold_is_replaced():
    text = junit_xml("a\x00b\udc80<c>", [KEPT])
    (suite,) = ElementTree.fromstring(text)
    assert suite.attrib["name"] == "budget of a?b?<c>"
    text.encode("utf-8")


@pytest.mark.parametrize(
    ("verdicts", "error", "said"),
    [
        ([KEPT, BROKEN], TfpruneError, f"digits: 1 limit is broken: {BROKEN.sentence}"),
        (
            [MISSING, BROKEN, BROKEN],
            TfpruneError,
            f"digits: 2 limits are broken: {BROKEN.sentence} (and 1 more)",
        ),
        ([MISSING], UsageError, f"digits: 1 limit is not to be judged: {MISSING.sentence}"),
    ],
)
def test_the_exit_counts_limits_and_names_the_first(verdicts, error, said):
    with pytest.raises(error) as caught:
        require_kept("digits", verdicts)
    assert str(caught.value) == said


def test_what_is_kept_raises_nothing():
    require_kept("digits", [KEPT])


def test_a_share_of_all_is_not_called_1_times():
    whole = dataclasses.replace(BROKEN, given=1.0, bound=18_432)
    assert "at most that of dense" in whole.sentence and "times" not in whole.sentence
