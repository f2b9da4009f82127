"""What can be known before anyone calls anyone: file, keys, way, machine, policy, data.

Nothing leaves the site but a TCP and TLS probe of the coordinator's port.
"""

from fedrad.federation.doctor.examination import examine
from fedrad.federation.doctor.finding import Finding

__all__ = ["Finding", "examine"]
