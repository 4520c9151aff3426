"""What /metrics of one or several processes says, to be asked."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families


class Exposed:
    """The samples of one or several texts in Prometheus' format."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self._samples = [
            sample for one in texts for family in text_string_to_metric_families(one) for sample in family.samples
        ]

    def value(self, name: str, **labels: str) -> float:
        """The value of the only sample with this name and these labels; 0 where there is none."""
        found = [one.value for one in self._samples if one.name == name and labels.items() <= one.labels.items()]
        assert len(found) <= 1, f"{name} {labels} is not one sample"
        return found[0] if found else 0

    def names(self) -> set[str]:
        return {sample.name for sample in self._samples}

    def labels(self, name: str) -> set[str]:
        return {label for sample in self._samples if sample.name == name for label in sample.labels}


def text_of(*registries: CollectorRegistry) -> str:
    return "".join(generate_latest(registry).decode() for registry in registries)
