"""What other code may listen to; every signal is sent with `send_robust`.

`backup_finished` and `backup_failed` carry `result` or `error`; `pre_restore` and
`post_restore` carry `restore_id` and `backup_id`. `drill_finished` carries `result`, passed or not.
`finding_raised` and `finding_cleared` carry `id`, `finding` (`policy.status.Finding`;
`policy.alerting.Cleared`) and `status`.
"""

from django.dispatch import Signal

backup_finished = Signal()
backup_failed = Signal()
pre_restore = Signal()
post_restore = Signal()
drill_finished = Signal()
finding_raised = Signal()
finding_cleared = Signal()
