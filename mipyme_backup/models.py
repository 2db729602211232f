"""The catalog: the history of runs and a cache of the manifests.

It can be rebuilt from the destinations at any time; its rows are left out of every dump.
`catalog` is the only writer.
"""

from __future__ import annotations

from django.db import models
from django.utils.text import capfirst
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _

from mipyme_backup import stored_shapes
from mipyme_backup.fields import CharField, JSONField, MomentField, TextField


class Backup(models.Model):
    """One run of a backup."""

    class Status(models.TextChoices):
        RUNNING = "running", _("running")
        COMPLETE = "complete", _("complete")
        PARTIAL = "partial", _("partial")
        FAILED = "failed", _("failed")
        ABANDONED = "abandoned", _("abandoned")

    class Kind(models.TextChoices):
        DAILY = "daily", _("daily")
        MONTHLY = "monthly", _("monthly")
        MANUAL = "manual", _("manual")
        PRE_DEPLOY = "pre_deploy", _("before a deployment")
        SAFETY = "safety", _("safety")

    backup_id = CharField(_("identifier"), max_length=32, unique=True)
    project = CharField(_("project"), max_length=255, blank=True)
    name = CharField(_("name"), max_length=255)
    kind = CharField(_("kind"), max_length=16, choices=Kind)
    label = CharField(_("label"), max_length=200, blank=True)
    status = CharField(_("status"), max_length=16, choices=Status)
    pinned = models.BooleanField(_("pinned"), default=False)
    sequence = models.PositiveBigIntegerField(_("sequence number"), default=0)
    whole = models.BooleanField(_("holds every source"), default=True)
    slot = MomentField(_("slot"), null=True, blank=True)
    started_at = MomentField(_("started"))
    finished_at = MomentField(_("finished"), null=True, blank=True)
    raw_size = models.PositiveBigIntegerField(_("size"), default=0)
    stored_size = models.PositiveBigIntegerField(_("stored size"), default=0)
    sha256 = CharField(_("SHA-256 of the manifest"), max_length=64, blank=True)
    sources = JSONField(_("sources"), default=list, shape=stored_shapes.TEXTS)
    warnings = JSONField(_("warnings"), default=list, shape=stored_shapes.TEXTS)
    error = TextField(_("error"), blank=True)
    manifest = JSONField(_("manifest"), default=dict, shape=stored_shapes.MANIFEST)

    class Meta:
        verbose_name = _("backup")
        verbose_name_plural = _("backups")
        ordering = ("-started_at",)
        indexes = (
            models.Index(fields=["kind", "-started_at"], name="mipyme_backup_kind_start"),
            models.Index(fields=["project", "-started_at"], name="mipyme_backup_project_start"),
        )
        permissions = (
            ("run_backup", "Can run a backup"),
            ("verify_backup", "Can verify backups"),
            ("run_drill", "Can run a restore drill"),
            ("pin_backup", "Can pin a backup"),
            ("restore_backup", "Can restore a backup"),
        )

    def __str__(self) -> str:
        return self.name


class Copy(models.Model):
    """One backup on one destination."""

    class Status(models.TextChoices):
        PENDING = "pending", _("pending")
        COMPLETE = "complete", _("complete")
        FAILED = "failed", _("failed")
        MISSING = "missing", _("missing")
        DAMAGED = "damaged", _("damaged")
        PRUNED = "pruned", _("pruned")

    backup = models.ForeignKey(
        Backup, models.CASCADE, related_name="copies", verbose_name=_("backup")
    )
    destination = CharField(_("destination"), max_length=100)
    status = CharField(_("status"), max_length=16, choices=Status)
    error = TextField(_("error"), blank=True)
    verified_at = MomentField(_("verified"), null=True, blank=True)
    damage_level = CharField(_("found damaged at level"), max_length=16, blank=True)

    class Meta:
        verbose_name = _("copy")
        verbose_name_plural = _("copies")
        ordering = ("destination",)
        constraints = (
            models.UniqueConstraint(
                fields=["backup", "destination"], name="mipyme_backup_copy_once"
            ),
        )

    def __str__(self) -> str:
        return f"{self.backup} @ {self.destination}"


class Restore(models.Model):
    """One run of a restore."""

    class Status(models.TextChoices):
        RUNNING = "running", _("running")
        COMPLETE = "complete", _("complete")
        FAILED = "failed", _("failed")
        UNDONE = "undone", _("undone")
        ABANDONED = "abandoned", _("abandoned")

    restore_id = CharField(_("identifier"), max_length=32, unique=True)
    backup_id = CharField(_("backup"), max_length=32)
    backup_name = CharField(_("name of the backup"), max_length=255)
    status = CharField(_("status"), max_length=16, choices=Status)
    sources = JSONField(_("sources"), default=list, shape=stored_shapes.TEXTS)
    safety_backup = CharField(_("safety backup"), max_length=255, blank=True)
    started_at = MomentField(_("started"))
    finished_at = MomentField(_("finished"), null=True, blank=True)
    downtime_seconds = models.FloatField(_("seconds of downtime"), null=True, blank=True)
    error = TextField(_("error"), blank=True)

    class Meta:
        verbose_name = _("restore")
        verbose_name_plural = _("restores")
        ordering = ("-started_at",)

    def __str__(self) -> str:
        return f"{self.restore_id}: {self.backup_name}"


class Drill(models.Model):
    """One rehearsal of a restore; its report is in `STATE_DIR`."""

    drill_id = CharField(_("identifier"), max_length=32, unique=True)
    backup_id = CharField(_("backup"), max_length=32)
    backup_name = CharField(_("name of the backup"), max_length=255)
    destination = CharField(_("destination"), max_length=255)
    passed = models.BooleanField(_("passed"))
    started_at = MomentField(_("started"))
    finished_at = MomentField(_("finished"))
    seconds = models.FloatField(_("seconds"))
    steps = JSONField(_("steps"), default=list, shape=stored_shapes.STEPS)
    notes = TextField(_("problems found, and what was done"), blank=True)

    class Meta:
        verbose_name = _("drill")
        verbose_name_plural = _("drills")
        ordering = ("-started_at",)

    def __str__(self) -> str:
        return f"{self.drill_id}: {self.backup_name}"


class Look(models.Model):
    """What the last look at a project's backups saw, for pages that may not wait for one."""

    project = CharField(_("project"), max_length=255, unique=True)
    at = MomentField(_("looked at"))
    document = JSONField(_("what was seen"), default=dict, shape=stored_shapes.LOOK)

    class Meta:
        verbose_name = _("look")
        verbose_name_plural = _("looks")

    def __str__(self) -> str:
        return f"{self.project}: {localtime(self.at):%Y-%m-%d %H:%M}"


class BackupHealth(Look):
    """The page of the admin that shows how the backups are, with permissions of its own."""

    class Meta:
        proxy = True
        verbose_name = _("backup health")
        verbose_name_plural = _("backup health")
        default_permissions = ("view", "change")


class ChecklistEntry(models.Model):
    """What somebody did to the disaster checklist; the entries since the last beginning count."""

    class Action(models.TextChoices):
        BEGAN = "began", _("began a fresh checklist")
        TICKED = "ticked", _("ticked off")
        CLEARED = "cleared", _("took back")

    project = CharField(_("project"), max_length=255)
    action = CharField(_("action"), max_length=16, choices=Action)
    line = TextField(_("line of the checklist"), blank=True)
    at = MomentField(_("when"))
    by = CharField(_("who"), max_length=255)

    class Meta:
        verbose_name = _("checklist entry")
        verbose_name_plural = _("checklist entries")
        ordering = ("-pk",)
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{localtime(self.at):%Y-%m-%d %H:%M}: {self.by}"


class Task(models.Model):
    """What somebody asked for in the admin, how far a worker is with it, and how it ended.

    Nothing is ever taken away from it: it is the record of who did what, and why. `under_way` names
    what may not be under way twice, and is None of what is over.
    """

    class Verb(models.TextChoices):
        BACKUP = "backup", _("back up")
        COMPLETE = "complete", _("complete copies")
        VERIFY = "verify", _("verify")
        DRILL = "drill", _("restore drill")
        PIN = "pin", _("pin")
        UNPIN = "unpin", _("take the pin away")
        PLAN = "plan", _("plan a restore")
        RESTORE = "restore", _("restore")

    class Status(models.TextChoices):
        QUEUED = "queued", _("queued")
        RUNNING = "running", _("running")
        COMPLETE = "complete", _("complete")
        PARTIAL = "partial", _("partial")
        FAILED = "failed", _("failed")
        ABANDONED = "abandoned", _("abandoned")

    task_id = CharField(_("identifier"), max_length=32, unique=True)
    project = CharField(_("project"), max_length=255, blank=True)
    verb = CharField(_("task"), max_length=16, choices=Verb)
    status = CharField(_("status"), max_length=16, choices=Status)
    under_way = models.CharField(  # noqa: DJ001 - unique among those that have one
        _("under way, once"), max_length=128, unique=True, null=True, editable=False
    )
    backup_id = CharField(_("backup"), max_length=32, blank=True)
    backup_name = CharField(_("name of the backup"), max_length=255, blank=True)
    options = JSONField(_("options"), default=dict, shape=stored_shapes.OPTIONS)
    asked_by = CharField(_("asked by"), max_length=255)
    asked_at = MomentField(_("asked"))
    reason = TextField(_("reason"), blank=True)
    started_at = MomentField(_("started"), null=True, blank=True)
    finished_at = MomentField(_("finished"), null=True, blank=True)
    seen_at = MomentField(_("last sign of life"), null=True, blank=True)
    step = TextField(_("step"), blank=True)
    step_at = MomentField(_("step began"), null=True, blank=True)
    done_bytes = models.PositiveBigIntegerField(_("bytes done"), default=0)
    total_bytes = models.PositiveBigIntegerField(_("bytes in all"), null=True, blank=True)
    result = JSONField(_("result"), default=dict, shape=stored_shapes.RESULT)
    error = TextField(_("error"), blank=True)
    hint = TextField(_("what to do"), blank=True)

    class Meta:
        verbose_name = _("task")
        verbose_name_plural = _("tasks")
        ordering = ("-pk",)
        default_permissions = ("view",)
        indexes = (models.Index(fields=["status"], name="mipyme_backup_task_status"),)

    def __str__(self) -> str:
        return f"{capfirst(self.get_verb_display())}, {localtime(self.asked_at):%Y-%m-%d %H:%M}"
