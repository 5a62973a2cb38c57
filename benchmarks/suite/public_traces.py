"""Public traces of traffic: what they are, their licence, where they are published and how to use them."""

from __future__ import annotations

from dataclasses import dataclass

NAB = "Numenta Anomaly Benchmark, https://github.com/numenta/NAB"
MONITORING = "Cloud Monitoring Dataset of Microsoft, https://github.com/microsoft/cloud-monitoring-dataset"
AZURE = "Azure Public Dataset, https://github.com/Azure/AzurePublicDataset"


@dataclass(frozen=True)
class PublicTrace:
    """A trace that its owners publish."""

    name: str
    content: str
    """What is counted."""
    interval: str
    """Time from one value to the next."""
    span: str
    """Time that the trace covers."""
    licence: str
    source: str
    """Publisher and web address."""
    file: str
    """File there."""
    use: str
    """Command that replays it."""
    convert: str = ""
    """Python that makes a trace of it; empty: the file is read as it is."""


PUBLIC_TRACES = (
    PublicTrace(
        "nyc_taxi",
        "taxi rides in New York",
        "30 minutes",
        "215 days, 2014 to 2015",
        "MIT",
        NAB,
        "data/realKnownCause/nyc_taxi.csv",
        "marca simulate --trace nyc_taxi.csv --start 2014-07-08",
    ),
    PublicTrace(
        "twitter_amzn",
        "mentions of a company on Twitter; bursty",
        "5 minutes",
        "55 days, 2015",
        "MIT",
        NAB,
        "data/realTweets/Twitter_volume_AMZN.csv",
        "marca balance --trace Twitter_volume_AMZN.csv",
    ),
    PublicTrace(
        "twitter_goog",
        "mentions of a company on Twitter; bursty",
        "5 minutes",
        "55 days, 2015",
        "MIT",
        NAB,
        "data/realTweets/Twitter_volume_GOOG.csv",
        "marca balance --trace Twitter_volume_GOOG.csv",
    ),
    PublicTrace(
        "ingress-01",
        "data that a production service takes in; comes with the package",
        "1 minute",
        "11 days, 2018",
        "MIT",
        MONITORING,
        "data/data-ingress-rate/ingress-01.csv",
        "marca simulate --trace ingress-01",
    ),
    PublicTrace(
        "machine-01",
        "queries to one machine of a production database; comes with the package",
        "1 minute",
        "14 days, 2018",
        "MIT",
        MONITORING,
        "data/mongodb-machine-rps/machine-01.csv",
        "marca simulate --trace machine-01",
    ),
    PublicTrace(
        "mongo-01",
        "queries of an application to a production database; comes with the package",
        "1 minute",
        "11 days, 2018",
        "MIT",
        MONITORING,
        "data/mongodb-application-rps/mongo-01.csv",
        "marca simulate --trace mongo-01",
    ),
    PublicTrace(
        "mongo-03",
        "queries of a smaller application to a production database; comes with the package",
        "1 minute",
        "11 days, 2018",
        "MIT",
        MONITORING,
        "data/mongodb-application-rps/mongo-03.csv",
        "marca simulate --trace mongo-03",
    ),
    PublicTrace(
        "azure_llm",
        "requests to a language model that writes code",
        "a row per request",
        "one week, 2024",
        "CC BY",
        AZURE,
        "AzureLLMInferenceTrace_code_1week.csv, linked from AzureLLMInferenceDataset2024.md",
        "marca balance --trace azure_llm.csv",
        'times = pd.to_datetime(pd.read_csv("AzureLLMInferenceTrace_code_1week.csv")["TIMESTAMP"], utc=True)\n'
        'counts = pd.Series(1, index=times).resample("1min").sum()\n'
        'counts.rename("value").rename_axis("timestamp").to_csv("azure_llm.csv")',
    ),
    PublicTrace(
        "wikipedia",
        "page views of each wiki",
        "1 hour",
        "since 2015",
        "CC0",
        "Wikimedia Foundation, https://dumps.wikimedia.org/other/pageviews/",
        "projectviews-YYYYMMDD-HH0000, a file per hour",
        "marca simulate --trace wikipedia.csv --timezone Europe/Berlin",
        "rows = []\n"
        'for path in sorted(pathlib.Path().glob("projectviews-*")):\n'
        '    wikis = pd.read_csv(path, sep=" ", header=None, usecols=[0, 2], index_col=0)[2]\n'
        '    hour = pd.to_datetime(path.name[13:28], format="%Y%m%d-%H%M%S", utc=True) - pd.Timedelta(hours=1)\n'
        '    rows.append((hour, wikis["de"] + wikis["de.m"]))  # the stamp of a file is the end of its hour\n'
        'pd.DataFrame(rows, columns=["timestamp", "value"]).to_csv("wikipedia.csv", index=False)',
    ),
)
"""Known public traces. Their licences are those of the publishers, who may change them."""
