from .days.replayed_day import balance_day as balance_day
from .days.replayed_day import simulate_day as simulate_day
