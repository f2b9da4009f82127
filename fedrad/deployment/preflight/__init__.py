"""What can be known before anyone calls anyone: file, keys, way, machine, policy, data.

Nothing leaves the site but a TCP and TLS probe of the coordinator's port.
"""

from fedrad.deployment.preflight.check_result import CheckResult
from fedrad.deployment.preflight.run_checks import run_checks

__all__ = ["CheckResult", "run_checks"]
