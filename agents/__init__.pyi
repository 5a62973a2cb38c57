from .algorithms.presets import PRESETS as PRESETS
from .policy.allocation_policy import AllocationPolicy as AllocationPolicy
