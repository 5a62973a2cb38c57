from .envs.batched_env import batched_env as batched_env
from .envs.options import EnvOptions as EnvOptions
from .envs.options import ViewOptions as ViewOptions
from .envs.pettingzoo_env import env as env
from .envs.pettingzoo_env import parallel_env as parallel_env
from .envs.request_window import RequestWindow as RequestWindow
from .envs.tensor_env import tensor_env as tensor_env
from .envs.wrappers import UniformAgents as UniformAgents
from .integration.feature_coding import FeatureCoder as FeatureCoder
from .logs.log_files import read_cost_log as read_cost_log
from .logs.log_files import read_request_log as read_request_log
from .logs.log_files import read_system_log as read_system_log
from .models.cost_model import CostModel as CostModel
from .models.engine import Engine as Engine
from .models.revenue_model import RevenueModel as RevenueModel
from .scenario.scenario import Scenario as Scenario
from .testbench.testbench import TestBench as TestBench
from .traffic.time_series import TraceOptions as TraceOptions
from .traffic.workload import read_trace as read_trace
from .utils.errors import InputError as InputError

__version__: str
STAGES: range
ENVIRONMENTS: dict[str, str]
__all__: list[str]
