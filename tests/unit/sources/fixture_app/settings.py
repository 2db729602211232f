"""The tests' project as another deployment of it: its database comes from the environment.

Apps come in the opposite order, so that content types and permissions get other numbers.
"""

from __future__ import annotations

import json
import os

from tests.settings import *  # noqa: F403

INSTALLED_APPS = json.loads(os.environ["FIXTURE_APPS"])[::-1]
DATABASES = {"default": json.loads(os.environ["FIXTURE_DATABASE"])}
