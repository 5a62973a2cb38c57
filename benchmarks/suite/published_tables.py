"""Tables of the paper (arXiv 2512.24325), five seeds each, for comparison with the experiments.

They were measured on traffic of JD.com, which is not public: values are not comparable with ours, rankings may be.
"""

from __future__ import annotations

from benchmarks.suite.flat_tables import FlatTable

LABEL = "published, measured on other data (JD.com traffic)"

RANKING = FlatTable(
    "offline evaluation of the models",
    ("model", "r_s", "Return%"),
    (
        ("DQN", "0.859", "82.59"),
        ("DDQN", "0.860", "85.46"),
        ("DRQN", "0.862", "86.82"),
        ("Averaged Ensemble-DQN", "0.870", "87.48"),
        ("REM", "0.881", "89.47"),
        ("VDN", "0.896", "95.10"),
        ("Weighted QMIX", "0.900", "95.65"),
        ("QMIX", "0.902", "96.00"),
        ("AWRQ-Mixer", "0.911 ± 0.009", "97.26 ± 1.01"),
    ),
)
ABLATION = FlatTable(
    "AWRQ-Mixer without its parts",
    ("ablation", "r_s", "Return%", "convergence, M steps", "gradient variance"),
    (
        ("full", "0.911", "97.26", "1.1", "0.18"),
        ("without AW", "0.910", "97.17", "1.4", "0.54"),
        ("without SMC", "0.908", "96.92", "1.3", "0.41"),
        ("without VGCA", "0.906", "96.71", "1.7", "0.27"),
    ),
)
GAMMA = FlatTable(
    "discount γ",
    ("γ", "Return%"),
    (("0.7", "97.18"), ("0.8", "97.22"), ("0.9", "97.26"), ("0.99", "97.21")),
)
HEADS = FlatTable(
    "number of heads K",
    ("K", "Return%"),
    (("1", "96.78"), ("5", "96.95"), ("20", "97.26"), ("100", "97.29"), ("200", "97.30")),
)
BALANCING = FlatTable(
    "balancers of the price of computation",
    ("balancer", "utilisation μ", "over-utilisation ν"),
    (("feedback", "92.33 %", "2.91 %"), ("MPC", "95.29 %", "0.64 %")),
)
ONLINE = FlatTable(
    "online A/B test, uplift over static, %",
    ("policy", "revenue", "GMV", "impressions", "clicks", "ROI", "CTR"),
    (
        ("DCAF", "3.67", "6.16", "4.92", "5.38", "2.40", "0.69"),
        ("RL-MPCA", "12.16", "13.78", "9.07", "15.37", "0.55", "4.85"),
        ("MaRCA, feedback", "14.93", "15.65", "11.67", "17.79", "0.64", "5.58"),
        ("MaRCA, MPC", "16.67", "18.18", "14.24", "19.51", "1.29", "5.22"),
    ),
)

PUBLISHED: dict[str, tuple[FlatTable, ...]] = {
    "ranking": (RANKING,),
    "ablation": (ABLATION,),
    "sensitivity": (GAMMA, HEADS),
    "balancing": (BALANCING,),
    "online": (ONLINE,),
}
"""Experiment → tables of the paper that it reproduces."""
