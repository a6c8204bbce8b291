"""The files of `keras.callbacks.TensorBoard`, and of TensorBoard, which reads them."""

import os
import re
import time


def epoch_tags(keys):
    """A pattern for the tags under which Keras's callback writes log keys at the end of an epoch.

    Keras 3.15.1: the tag is `epoch_<key>`, and training and validation are two runs, `train` and
    `validation`, in whose tags there is no `val_`.
    """
    return f"epoch_(?:{'|'.join(map(re.escape, keys))})$"


def write_layout(folder, layout):
    """Adds the serialized `layout` to the file that TensorBoard reads first of the run `folder`.

    TensorBoard 2.20: it reads the files of a run in the order of their names, and leaves one when
    the next has begun. Keras's own has the time in its name: a file with a greater number would
    make TensorBoard leave it while the training still writes there.
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
