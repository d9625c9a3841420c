"""What TensorBoard reads of a run, and what it shows of it."""

import struct


def events(run):
    """Every event in the run's TensorBoard files, in the order of their names."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted((run / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack("Q", data[at : at + 8])
            yield Event.FromString(data[at + 12 : at + 12 + size])
            at += 12 + size + 4


def shown(run):
    """(step, tag, value) of every point and picture, in order. A session that starts at a step
    hides what was there from that step on."""
    points = []
    for event in events(run):
        if event.HasField("session_log"):
            points = [point for point in points if point[0] < event.step]
        points += [
            (event.step, value.tag, value.image.encoded_image_string or value.simple_value)
            for value in event.summary.value
        ]
    return points
