"""The keys that authenticate manifests: this project's at once, those of others rationed.

Each costs a scrypt, and anyone who can write to a destination may plant manifests of as many
projects as there are names.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mipyme_backup.authentication import DeriveKey, salt_of
from mipyme_backup.encryption.passphrase import derive_key
from mipyme_backup.errors import NotCheckedError
from mipyme_backup.messages import _

STRANGERS = 8
"""How many keys of other projects are derived in `PERIOD_SECONDS`: a second of work or so."""

PERIOD_SECONDS = 600.0
KEPT = 64


class Ration:
    """Derives a key for each new pair of secret and salt, `STRANGERS` of them in a period.

    Those that were derived are kept; beyond the ration it raises NotCheckedError. A key that
    proved to authenticate a manifest does not count: only a holder of the secret can have made
    that. Several threads may share one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[tuple[bytes, bytes], bytes] = {}
        self._derived_at: dict[tuple[bytes, bytes], float] = {}

    def __call__(self, secret: bytes, salt: bytes) -> bytes:
        with self._lock:
            if (secret, salt) not in self._keys:
                now, derived = self._clock(), self._derived_at.items()
                self._derived_at = {key: at for key, at in derived if now - at < PERIOD_SECONDS}
                if len(self._derived_at) >= STRANGERS:
                    raise _too_many()
                self._derived_at[secret, salt] = now
                if len(self._keys) >= KEPT:
                    del self._keys[next(iter(self._keys))]
                self._keys[secret, salt] = derive_key(secret, salt)
            return self._keys[secret, salt]

    def give_back(self, salt: bytes) -> None:
        """Count the keys of this salt no longer."""
        with self._lock:
            for key in [key for key in self._derived_at if key[1] == salt]:
                del self._derived_at[key]


_strangers = Ration()  # of this process: a run looks at several destinations, some of them twice


def keys_of(project: str) -> DeriveKey:
    """Return what derives keys for whoever reads manifests as the project of that name."""
    ours = salt_of(project)

    def derive(secret: bytes, salt: bytes) -> bytes:
        return (derive_key if salt == ours else _strangers)(secret, salt)

    return derive


def authenticated(project: str) -> None:
    """Note that a manifest of the project proved to be authentic."""
    _strangers.give_back(salt_of(project))


def _too_many() -> NotCheckedError:
    return NotCheckedError(
        _("It was not checked: backups of too many other projects lie there."),
        hint=_(
            "Look who can write there, and remove what was planted. Some more are checked every"
            " ten minutes."
        ),
    )
