"""What `device.py` asks of a framework: to run a function on a device, and how much memory it took.

`here()` gives the `Framework` that Keras runs on. Without an accelerator its `device` is "cpu".
"""

import importlib

import keras


class Framework:
    """The base of one class for each framework.

    Attributes:
        device: what `keras.device` calls the accelerator, or "cpu".
        title: what its maker calls it.
        modes: the ways to run a function; the first is the usual one.
    """

    device, title, modes = "cpu", "CPU", ("eager",)

    def __init__(self):
        self.library = importlib.import_module(keras.backend.backend())

    def prepared(self, function, y_true, y_pred, device, mode, dtype="float32"):
        """A function without arguments that gives value and gradient, when they are computed.

        `function(y_true, y_pred)` returns one number, and `y_pred` is given in `dtype`.
        """
        raise NotImplementedError

    def allow_tf32(self, allowed):
        """Whether products of float32 may round their factors to 10 bits."""

    def peak_mb(self, run):
        """The most memory of the accelerator that a call held, in MB; None if it is unknown."""
        return


class Torch(Framework):
    def __init__(self):
        super().__init__()
        if self.library.cuda.is_available():
            self.device, self.title = "gpu:0", self.library.cuda.get_device_name(0)

    def prepared(self, function, y_true, y_pred, device, mode, dtype="float32"):
        torch, place = self.library, "cpu" if device == "cpu" else "cuda:0"
        y_true = torch.as_tensor(y_true, device=place)
        y_pred = torch.as_tensor(y_pred, device=place).to(getattr(torch, dtype)).requires_grad_()

        def run():
            with keras.device(device):
                value = function(y_true, y_pred)
                (slope,) = torch.autograd.grad(value, y_pred, materialize_grads=True)
            if place != "cpu":
                torch.cuda.synchronize()
            return value.detach(), slope

        return run

    def allow_tf32(self, allowed):
        self.library.backends.cuda.matmul.allow_tf32 = allowed
        self.library.backends.cudnn.allow_tf32 = allowed

    def peak_mb(self, run):
        if self.device == "cpu":
            return None
        cuda = self.library.cuda
        cuda.reset_peak_memory_stats()
        run()
        return cuda.max_memory_allocated() / 2**20


class TensorFlow(Framework):
    modes = ("graph", "XLA", "eager")

    def __init__(self):
        super().__init__()
        self.library.get_logger().setLevel("ERROR")  # each loss is traced anew, on purpose
        found = self.library.config.list_physical_devices("GPU")
        if found:
            details = self.library.config.experimental.get_device_details(found[0])
            self.device, self.title = "gpu:0", details.get("device_name", "GPU")

    def prepared(self, function, y_true, y_pred, device, mode, dtype="float32"):
        tf = self.library
        with keras.device(device):
            y_true, y_pred = tf.constant(y_true), tf.cast(tf.constant(y_pred), dtype)

        def step(y_true, y_pred):
            with tf.GradientTape() as tape:
                tape.watch(y_pred)
                value = function(y_true, y_pred)
            return value, tape.gradient(value, y_pred, unconnected_gradients="zero")

        if mode != "eager":
            step = tf.function(step, jit_compile=mode == "XLA")

        def run():
            with keras.device(device):
                value, slope = step(y_true, y_pred)
            value.numpy()  # waits
            return value, slope

        return run

    def allow_tf32(self, allowed):
        self.library.config.experimental.enable_tensor_float_32_execution(allowed)

    def peak_mb(self, run):
        if self.device == "cpu":
            return None
        memory = self.library.config.experimental
        memory.reset_memory_stats("GPU:0")
        run()
        return memory.get_memory_info("GPU:0")["peak"] / 2**20


class Jax(Framework):
    modes = ("XLA",)

    def __init__(self):
        super().__init__()
        if self.library.default_backend() != "cpu":
            self.device, self.title = "gpu:0", self.library.devices()[0].device_kind

    def prepared(self, function, y_true, y_pred, device, mode, dtype="float32"):
        jax = self.library
        place = jax.devices("cpu")[0] if device == "cpu" else jax.devices()[0]
        y_true = jax.device_put(y_true, place)
        y_pred = jax.device_put(y_pred, place).astype(dtype)

        def step(y_true, y_pred):
            return jax.value_and_grad(lambda p: function(y_true, p))(y_pred)

        with keras.device(device), jax.default_device(place):
            compiled = jax.jit(step).lower(y_true, y_pred).compile()

        def run():
            return jax.block_until_ready(compiled(y_true, y_pred))

        run.compiled = compiled
        return run

    def allow_tf32(self, allowed):
        precision = "tensorfloat32" if allowed else "highest"
        self.library.config.update("jax_default_matmul_precision", precision)

    def peak_mb(self, run):
        """The memory that XLA has planned for the call."""
        planned = run.compiled.memory_analysis()
        if planned is None:
            return None
        held = planned.argument_size_in_bytes + planned.output_size_in_bytes
        return (held + planned.temp_size_in_bytes) / 2**20


def here():
    return {"torch": Torch, "tensorflow": TensorFlow, "jax": Jax}[keras.backend.backend()]()
