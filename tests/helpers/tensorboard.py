"""Reader of TensorBoard events."""

from __future__ import annotations

from pathlib import Path


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Return tag → step → value of all TensorBoard events in a folder."""
    from tensorboardX.proto.event_pb2 import Event

    values: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            for value in event.summary.value:
                values.setdefault(value.tag, {})[event.step] = value.simple_value
    return values
