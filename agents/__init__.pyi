from .algorithms.options import PresetError as PresetError
from .algorithms.presets import PRESETS as PRESETS
from .algorithms.presets import Preset as Preset
from .algorithms.presets import preset as preset
from .offline.splits import Split as Split
from .policy.allocation_policy import AllocationPolicy as AllocationPolicy
from .team.team import Team as Team
from .team.team import TeamSpec as TeamSpec
