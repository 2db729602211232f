from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('mipyme_backup', '0006_backup_project'),
    ]

    operations = [
        migrations.AddField(
            model_name='task',
            name='project',
            field=models.CharField(blank=True, max_length=255, verbose_name='project'),
        ),
    ]
