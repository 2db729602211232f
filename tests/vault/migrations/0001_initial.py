from django.db import migrations, models

from tests.vault.models import private
from tests.vault.storages import scans, tenants


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Paper",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("plain", models.FileField(blank=True, upload_to="")),
                ("hidden", models.FileField(blank=True, storage=private, upload_to="")),
                ("scan", models.FileField(blank=True, storage=scans, upload_to="")),
                ("contract", models.FileField(blank=True, storage=tenants, upload_to="")),
            ],
        ),
    ]
