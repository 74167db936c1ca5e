"""Jobs that a policy keeps from the network: the limit of their priority is zero (S5, S6, P2, P10).

The rule: such a job waits in TRANSIENT_ERROR with BG_E_BLOCKED_BY_POLICY, without a timer (R3), and goes on when the
limit is another one.  FOREGROUND is never limited.
"""

from __future__ import annotations

from typing import Final

from openbits.core.environment import Environment
from openbits.core.events import Failure
from openbits.core.model import Job, JobState
from openbits.errors import ErrorContext

BLOCKED: Final = "BG_E_BLOCKED_BY_POLICY"


def is_blocked_by_policy(job: Job, env: Environment) -> bool:
    """Whether the policy in force leaves jobs of this priority no bandwidth."""
    return job.settings.priority in env.blocked_priorities


def waits_for_policy(job: Job) -> bool:
    """Whether the job waits for another limit."""
    return job.state is JobState.TRANSIENT_ERROR and job.error is not None and job.error.name == BLOCKED


def no_bandwidth(env: Environment) -> Failure:
    """The failure of a job that may use no bandwidth."""
    source = f" ({env.blocked_by})" if env.blocked_by else ""
    return Failure(
        name=BLOCKED,
        context=ErrorContext.GENERAL_QUEUE_MANAGER,
        message=f"a policy leaves jobs of its priority no bandwidth now{source}: the job goes on when it does",
        transient=True,
    )
