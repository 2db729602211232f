"""For authors of back ends: the contracts that every part must keep, and parts for tests.

A contract is a class of pytest tests. Derive from it, give it what it asks for as fixtures, and
run pytest; each test names what it holds your back end to::

    # tests/test_my_destination.py
    import pytest
    from mipyme_backup.testing import DestinationContract

    class TestMyDestination(DestinationContract):
        @pytest.fixture
        def destination(self, tmp_path):
            return MyDestination(...)      # empty, and a new one for each test

- `DestinationContract` asks for ``destination``.
- `EncryptionContract` asks for ``encryption`` and ``stranger``, the same back end with another key.
- `SourceContract` asks for ``source`` and ``view``; override ``what_stays`` where two readings
  of one view may differ (a dump with a time stamp).
- `TargetContract` asks for ``restoring``, a `Restoring`: live data and other data to restore.

`pytest.register_assert_rewrite("mipyme_backup.testing")` in a ``conftest.py`` makes failures
show the values. The module itself needs no pytest.

`FakeSource` yields bytes that you give it. `FaultyDestination` wraps a real destination and fails
by plan, as real ones do: an error before or after the work was done, a short write, bytes that
were lost or changed on the way, a listing that comes back empty.
"""

from mipyme_backup.testing.destinations import DestinationContract
from mipyme_backup.testing.doubles import FakeSource, Fault, FaultyDestination
from mipyme_backup.testing.encryption import EncryptionContract
from mipyme_backup.testing.readers import BytesReader, raising, read_whole
from mipyme_backup.testing.sources import SourceContract
from mipyme_backup.testing.targets import Restoring, TargetContract

__all__ = [
    "BytesReader",
    "DestinationContract",
    "EncryptionContract",
    "FakeSource",
    "Fault",
    "FaultyDestination",
    "Restoring",
    "SourceContract",
    "TargetContract",
    "raising",
    "read_whole",
]
