"""Verdicts as JUnit XML, the form in which CI servers show tests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.dom import minidom

from junitparser import Error, Failure, JUnitXml, TestCase, TestSuite

from tfprune.report.budgets.verdict import Verdict

# What XML 1.0 cannot hold, however it is escaped.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(name: str, verdicts: Iterable[Verdict]) -> str:
    """One test case a verdict: broken is a failure, missing is an error.

    A case keeps its name from run to run, whatever is measured, so that a server can show its
    history. It is told twice, as the attribute `message` and as text, because some servers show
    only one of them. Nothing in it is a time, so equal verdicts give equal bytes.

    Args:
        name: of the run.
        verdicts: what `judge` returned.

    Returns:
        The document, indented, with a newline at its end.
    """
    suite = TestSuite(_clean(f"budget of {name}"))
    for each in verdicts:
        case = TestCase(
            _clean(f"rule #{each.rule}: {each.title} {each.asked}"),
            _clean(f"{name}.{each.variant}.{each.artifact}"),
        )
        told = _clean(each.told)
        if each.verdict == "broken":
            case.result = [_result(Failure(told, "broken"), told)]
        elif each.verdict == "missing":
            case.result = [_result(Error(told, "missing"), told)]
        else:
            case.system_out = told
        suite.add_testcase(case)
    document = JUnitXml("tfprune check")
    document.add_testsuite(suite)
    document.update_statistics()
    pretty = minidom.parseString(document.tostring()).toprettyxml(indent="  ", encoding="utf-8")
    return pretty.decode("utf-8")


def _result(result: Failure | Error, told: str) -> Failure | Error:
    result.text = told
    return result


def _clean(text: str) -> str:
    return _NO_XML.sub("?", text)
