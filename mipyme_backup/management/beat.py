"""The one periodic task of django-celery-beat that sends what is due."""

from __future__ import annotations

from django.apps import apps
from django.conf import settings

from mipyme_backup.errors import PreflightError
from mipyme_backup.messages import _
from mipyme_backup.schedule import BEAT_MINUTES, BEAT_NAME, EVERY, RUN_DUE_TASK


def install() -> bool:
    """Make the task, or put it right; says whether anything had to be done.

    Raises PreflightError where django-celery-beat is not among the installed apps.
    """
    if not apps.is_installed("django_celery_beat"):
        raise PreflightError(
            _("django_celery_beat is not in INSTALLED_APPS."),
            hint=_(
                "Add it and run migrate; or use mipyme_backup.schedule.beat_schedule() in"
                " app.conf.beat_schedule."
            ),
        )
    from django_celery_beat.models import CrontabSchedule, PeriodicTask

    # Quarters of an hour are the same ones in every zone.
    moments = {
        "minute": BEAT_MINUTES,
        "hour": "*",
        "day_of_week": "*",
        "day_of_month": "*",
        "month_of_year": "*",
        "timezone": settings.TIME_ZONE,
    }
    there = CrontabSchedule.objects.filter(**moments).order_by("pk")  # there may be several
    schedule = there.first() or CrontabSchedule.objects.create(**moments)
    wanted = {
        "task": RUN_DUE_TASK,
        "crontab": schedule,
        "interval": None,
        "enabled": True,
        "expire_seconds": int(EVERY.total_seconds()),
    }
    task, created = PeriodicTask.objects.get_or_create(name=BEAT_NAME, defaults=wanted)
    changed = [name for name, value in wanted.items() if getattr(task, name) != value]
    if not created and changed:
        for name in changed:
            setattr(task, name, wanted[name])
        task.save()  # tells a running beat
    return created or bool(changed)
