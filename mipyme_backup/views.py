"""What monitoring asks: the last look at the backups, as JSON and for Prometheus.

Only who shows the token of MONITORING_TOKEN_FILE, or is logged in and may view backups, gets an
answer. Nothing is looked at for it, so it costs one query, however slow a destination is.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from mipyme_backup import api
from mipyme_backup.errors import BackupError
from mipyme_backup.translation import translated

PERMISSION = "mipyme_backup.view_backup"
BEARER = "Bearer "

logger = logging.getLogger("mipyme_backup")


def _protected(
    view: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    @require_safe
    @never_cache
    @functools.wraps(view)
    def guarded(request: HttpRequest) -> HttpResponse:
        user = getattr(request, "user", None)  # the project may have no such middleware
        if _is_monitor(request) or (user is not None and user.has_perm(PERMISSION)):
            try:
                return view(request)
            except BackupError as error:  # the settings cannot be read
                return _refused(
                    503, f"{translated(error.message)} {translated(error.hint)}".strip()
                )
        if user is not None and user.is_authenticated:
            return _refused(403, _("You lack the permission %(name)s.") % {"name": PERMISSION})
        response = _refused(401, _("Send the token: Authorization: Bearer TOKEN."))
        response["WWW-Authenticate"] = 'Bearer realm="mipyme_backup"'
        return response

    return guarded


@_protected
def health(request: HttpRequest) -> HttpResponse:
    """Answer as ``backup_status --json`` does; status 503 where the level is critical."""
    look = api.last_look()
    return JsonResponse(look.to_dict(), status=503 if look.level == "critical" else 200)


@_protected
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer in Prometheus' text format, or OpenMetrics where the request accepts it."""
    try:
        from mipyme_backup.metrics import exposition
    except ImportError:
        return _refused(501, _("Install prometheus-client: pip install 'mipyme-backup[metrics]'."))
    content, content_type = exposition(request.headers.get("Accept", ""))
    return HttpResponse(content, content_type=content_type)


def _is_monitor(request: HttpRequest) -> bool:
    given = request.headers.get("Authorization", "")
    try:
        return given.startswith(BEARER) and api.is_monitor(given.removeprefix(BEARER).strip())
    except BackupError as error:
        logger.error("Monitoring is refused: %s %s", error, error.hint)
        return False


def _refused(status: int, message: str) -> JsonResponse:
    return JsonResponse({"error": {"message": message}}, status=status)
