"""The overview as the page's template reads it: words in the reader's language, and drawings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext as _

from mipyme_backup.admin import charts, marks
from mipyme_backup.admin.contents import contents_rows
from mipyme_backup.admin.health_charts import calendar_context, kind_word, trend_context
from mipyme_backup.models import Copy
from mipyme_backup.monitoring.overview import Age, Overview, Recovery
from mipyme_backup.monitoring.places import CopiesRow, Place
from mipyme_backup.operations.drill_report import DISASTER
from mipyme_backup.policy.finding import Level, age_text
from mipyme_backup.schedule import JOB_TEXTS
from mipyme_backup.translation import translated

Address = Callable[[str, int], str | None]
"""From a model's name and a row's key to its page; None where the reader may not see it."""


def context_of(overview: Overview, address: Address) -> dict[str, Any]:
    """Return what the template reads."""
    look = overview.look
    return {
        "verdict": _verdict(overview),
        "looked_at": marks.moment(look.at) if look.at else None,
        "look_age": age_text(overview.now - look.at) if look.at else None,
        "newer_than_look": overview.newer_than_look,
        "unreadable": translated(overview.unreadable) if overview.unreadable else None,
        "empty": not overview.past.runs and overview.past.good is None,
        "findings": [
            {
                "id": finding.id,
                "level": _level(finding.level),
                "message": translated(finding.message),
                "hint": translated(finding.hint),
            }
            for finding in look.findings
        ],
        "age": _age(overview.age, overview.promises.rpo),
        "recovery": _recovery(overview.recovery, address),
        "coming": _coming(overview),
        "coming_known": overview.coming_known,
        "days": len(overview.calendars[0].days) if overview.calendars else 0,
        **calendar_context(overview.calendars),
        **trend_context(overview.trend),
        "places": [_place(place) for place in overview.places],
        "copies": [_copies(row, address) for row in overview.copies],
        "saved_name": overview.past.good.name if overview.past.good else None,
        "saved": contents_rows(overview.saved),
        "checklist": _checklist(overview),
        "contacts": overview.promises.contacts,
        "default_contacts": _default_contacts(),
        "review": overview.promises.review,
    }


def _verdict(overview: Overview) -> dict[str, Any]:
    words = {
        "ok": (_("Fine"), _("The backups are as they should be.")),
        "warning": (_("Look at it"), _("There are good backups, and something to mend.")),
        "critical": (
            _("Act now"),
            _("Something is wrong that could cost data.")
            if overview.look.at
            else _("Whether the backups are good is not known."),
        ),
    }
    word, sentence = words[overview.level]
    return {
        "tone": marks.OF_LEVEL[overview.level],
        "sign": marks.SIGNS[marks.OF_LEVEL[overview.level]],
        "word": word,
        "sentence": sentence,
    }


def _level(level: Level) -> Any:
    words = {"ok": _("to know"), "warning": _("warning"), "critical": _("critical")}
    tone = marks.NEUTRAL if level == "ok" else marks.OF_LEVEL[level]
    return marks.mark(tone, words[level])


def _age(age: Age | None, rpo: timedelta) -> dict[str, Any]:
    if age is None:
        return {"mark": marks.mark(marks.BAD, _("none")), "rpo": age_text(rpo)}
    words = {
        "ok": _("within the RPO"),
        "warning": _("older than the RPO"),
        "critical": _("too old"),
    }
    scale = max(age.rpo, age.most) * 1.5
    return {
        "name": age.name,
        "finished": marks.moment(age.finished_at),
        "age": age_text(age.age),
        "rpo": age_text(age.rpo),
        "mark": marks.mark(marks.OF_LEVEL[age.level], words[age.level]),
        "bar": charts.bar(age.age / scale, tone=marks.OF_LEVEL[age.level], limit=age.rpo / scale),
    }


def _recovery(recovery: Recovery, address: Address) -> dict[str, Any]:
    drill, rto = recovery.drill, recovery.rto
    known = [time for time in (recovery.measured, recovery.predicted) if time is not None]
    scale = max([rto, *known]) * 1.25
    return {
        "rto": age_text(rto),
        "overdue": recovery.overdue,
        "measured": _time(recovery.measured, rto, scale),
        "predicted": _time(recovery.predicted, rto, scale),
        "drill": drill
        and {
            "backup": drill.backup_name,
            "finished": marks.moment(drill.finished_at),
            "mark": marks.mark(marks.GOOD, _("passed"))
            if drill.passed
            else marks.mark(marks.BAD, _("failed")),
            "url": address("drill", drill.pk),
        },
    }


def _time(time: timedelta | None, rto: timedelta, scale: timedelta) -> dict[str, Any] | None:
    if time is None:
        return None
    tone = marks.GOOD if time <= rto else marks.DOUBTFUL
    word = _("within the RTO") if time <= rto else _("longer than the RTO")
    return {
        "text": marks.duration(time.total_seconds()),
        "mark": marks.mark(tone, word),
        "bar": charts.bar(time / scale, tone=tone, limit=rto / scale),
    }


def _coming(overview: Overview) -> list[dict[str, Any]]:
    rows = []
    for job in overview.coming:
        last = job.last if job.last and job.last.at else None
        if last is None:
            result: object = marks.NOTHING
        elif last.done:
            result = marks.mark(marks.GOOD, _("done"))
        else:
            text = ngettext("failed %(count)d time", "failed %(count)d times", last.failed)
            result = marks.mark(marks.BAD, text % {"count": last.failed})
        rows.append(
            {
                "job": translated(JOB_TEXTS[job.job]),
                "next": marks.moment(job.next_slot) if job.expression else _("turned off"),
                "last": marks.moment(last.slot) if last else marks.NOTHING,
                "result": result,
            }
        )
    return rows


def _place(place: Place) -> dict[str, Any]:
    share = place.share_free
    tone = marks.DOUBTFUL if place.low else marks.GOOD
    return {
        "name": place.name,
        "where": place.where or marks.NOTHING,
        "remote": place.remote,
        "seen": place.seen,
        "state": _state(place),
        "error": place.error,
        "backups": marks.count(place.backups),
        "free": marks.size(place.free) if place.free is not None else None,
        "total": marks.size(place.total) if place.total else None,
        "low": marks.mark(tone, _("little room")) if place.low else "",
        "bar": charts.bar(share, tone=tone) if share is not None else "",
    }


def _state(place: Place) -> Any:
    if not place.configured:
        return marks.mark(marks.NEUTRAL, _("no longer in the settings"))
    if not place.seen:
        return marks.mark(marks.NEUTRAL, _("not looked at yet"))
    if not place.reachable:
        return marks.mark(marks.BAD, _("away"))
    if place.writable is False:
        return marks.mark(marks.BAD, _("takes no backups"))
    return marks.mark(marks.GOOD, _("there"))


def _copies(row: CopiesRow, address: Address) -> dict[str, Any]:
    words = dict(Copy.Status.choices)
    return {
        "name": row.run.name,
        "url": address("backup", row.run.pk),
        "kind": kind_word(row.run.kind),
        "at": marks.moment(row.run.started_at),
        "size": marks.size(row.run.stored_size),
        "cells": [
            {
                "mark": marks.status(cell.status, words.get(cell.status, cell.status))
                if cell.status
                else marks.NOTHING,
                "error": cell.error,
            }
            for cell in row.cells
        ],
    }


def _checklist(overview: Overview) -> dict[str, Any]:
    checklist, words = overview.checklist, _checklist_words()
    return {
        "lines": [
            {
                "key": line.text,
                "text": words.get(line.text, line.text),
                "by": line.ticked.by if line.ticked else None,
                "at": marks.moment(line.ticked.at) if line.ticked else None,
            }
            for line in checklist.lines
        ],
        "done": checklist.done,
        "began_by": checklist.began.by if checklist.began else None,
        "began_at": marks.moment(checklist.began.at) if checklist.began else None,
    }


def _checklist_words() -> Mapping[str, str]:
    """Return the policy's lines in the reader's language, by the English ones."""
    return {line: gettext(line) for line in DISASTER}


def _default_contacts() -> list[tuple[str, str]]:
    """Return the roles that the policy names, and when they should be there."""
    return [
        (_("Main administrator"), _("24/7")),
        (_("Backup administrator"), _("Mon-Fri 9-18")),
        (_("Hosting provider"), _("as in the contract")),
    ]
