"""Where a run comes from: data, commands, commits, versions, machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfprune.report.html.words import moment, options
from tfprune.report.run import Run


def provenance(run: Run) -> dict[str, Any]:
    """What the page says of a run's origin.

    Args:
        run: what was read.

    Returns:
        data, model and seeds as text, and sessions, a list with the same keys each; versions and
        machine are empty where they are those of the session before.
    """
    pipeline = run.record.get("pipeline", {})
    model = pipeline.get("model", {})
    sessions, before = [], ("", "")
    for session in run.record.get("sessions", []):
        said = (options(session.get("versions") or {}), machine(session.get("machine") or {}))
        sessions.append(
            {
                "command": str(session.get("command") or "unknown"),
                "commit": str(session.get("commit") or "unknown"),
                "seeds": ", ".join(str(seed) for seed in session.get("seeds") or []),
                "begun": moment(session["begun"]) if session.get("begun") else "unknown",
                "ended": moment(session.get("ended")),
                "versions": said[0] if said[0] != before[0] else "",
                "machine": said[1] if said[1] != before[1] else "",
            }
        )
        before = said
    return {
        "data": str(run.record.get("data", "")),
        "model": f"{model.get('name', '')} {options(model.get('options') or {})}".strip(),
        "seeds": ", ".join(str(seed) for seed in run.record.get("seeds", [])),
        "sessions": sessions,
    }


def machine(values: Mapping[str, Any]) -> str:
    """A machine on one line: "AMD EPYC, 2 cores, 23.5 GiB, Linux x86_64"."""
    texts = {"cores": "{} cores", "memory_gib": "{} GiB"}
    return ", ".join(texts.get(key, "{}").format(value) for key, value in values.items())
