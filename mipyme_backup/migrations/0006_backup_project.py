from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def note_project(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Take each backup's project from its manifest; of a run that failed it is not known."""
    Backup = apps.get_model("mipyme_backup", "Backup")
    backups = Backup.objects.using(schema_editor.connection.alias)
    known = backups.exclude(manifest={}).values_list("pk", "manifest__project")
    for pk, project in [*known]:
        backups.filter(pk=pk).update(project=project or "")


class Migration(migrations.Migration):

    dependencies = [
        ('mipyme_backup', '0005_task'),
    ]

    operations = [
        migrations.AddField(
            model_name='backup',
            name='project',
            field=models.CharField(blank=True, max_length=255, verbose_name='project'),
        ),
        migrations.AddIndex(
            model_name='backup',
            index=models.Index(fields=['project', '-started_at'], name='mipyme_backup_project_start'),
        ),
        migrations.RunPython(note_project, migrations.RunPython.noop),
    ]
