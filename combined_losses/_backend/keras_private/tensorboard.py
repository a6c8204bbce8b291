"""The files of `keras.callbacks.TensorBoard`, and of TensorBoard, which reads them."""

import os
import re
import time
from collections.abc import Iterable
from typing import Any


def epoch_tags(keys: Iterable[str]) -> str:
    """A pattern for the tags under which Keras's callback writes log keys at the end of an epoch.

    Keras 3.15.1: the tag is `epoch_<key>`. Training and validation are two runs, `train` and
    `validation`; the tags of the latter have no `val_`.
    """
    return f"epoch_(?:{'|'.join(map(re.escape, keys))})$"


def write_layout(folder: str, layout: Any) -> None:
    """Adds the serialized `layout` to the first file that TensorBoard reads of the run `folder`.

    TensorBoard 2.20: it reads the files of a run in the order of their names, and never returns to
    a file once the next one has data. The name of Keras's file has the time in it. A file with a
    greater number would stop TensorBoard from reading Keras's file while the training writes to it.
    """
    from tensorboard.compat import tf  # where there is a TensorFlow: also remote folders
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.plugins.custom_scalar import metadata
    from tensorboard.summary.writer.record_writer import RecordWriter
    from tensorboard.util import tensor_util

    value = summary_pb2.Summary.Value(
        tag=metadata.CONFIG_SUMMARY_TAG,
        metadata=metadata.create_summary_metadata(),
        tensor=tensor_util.make_tensor_proto(layout),
    )
    event = event_pb2.Event(wall_time=time.time(), summary=summary_pb2.Summary(value=[value]))
    tf.io.gfile.makedirs(folder)
    with tf.io.gfile.GFile(os.path.join(folder, "events.out.tfevents.0.composites"), "ab") as file:
        RecordWriter(file).write(event.SerializeToString())
